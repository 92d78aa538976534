"""What the loader of shared libraries says of llama.cpp, and what mends that. Pure."""

from __future__ import annotations

import re

PACKAGES = {"libvulkan.so.1": "libvulkan1", "libgomp.so.1": "libgomp1", "libstdc++.so.6": "libstdc++6"}
"""Debian's, of the libraries that a build for Vulkan or for the CPU needs beside the C library."""
_MISSING = re.compile(r"(\S+): cannot open shared object file: No such file")  # dlopen(3), glibc's words


def why(said: str) -> str:
    """One line: what is missing, and after a semicolon what to do; the engine tries it at its next start only.

    Args:
        said: what dlerror(3) said.
    """
    found = _MISSING.match(said)
    if found is None:
        return (
            f"{said}; compile it for this machine (bash deploy/try in the checkout), then start edged again"
        )
    name = found[1].rpartition("/")[2]
    if name in PACKAGES:
        return f"{name} is missing; sudo apt-get install {PACKAGES[name]}, then start edged again"
    return f"{name} is missing; install the package that holds it, then start edged again"
