"""What there is beside the CPU: the GPUs that llama.cpp has found, and the kinds that it was built for.

Asked after `start`, which loads the plug-ins. The functions of ggml-backend.h are taken through libllama, whose own
libraries hold them: a libggml that is loaded by its path may be a second copy, with a list of devices of its own.
"""

from __future__ import annotations

import ctypes
import re

from .bindings import FOLDER, C

_GPU, _INTEGRATED = 1, 2  # enum ggml_backend_dev_type of ggml-backend.h
_NO_GPU = frozenset({"base", "cpu", "blas", "rpc", "zdnn"})
"""Libraries beside libggml that drive no GPU."""


def gpus() -> tuple[str, ...]:
    """The devices that llama.cpp would use: all GPUs with memory of their own, else those within the processor."""
    library = C._lib  # noqa: SLF001 - the bindings declare llama.h alone
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_description.restype = ctypes.c_char_p
    library.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    found: dict[int, list[str]] = {_GPU: [], _INTEGRATED: []}
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        kind = library.ggml_backend_dev_type(device)
        if kind in found:
            found[kind].append(library.ggml_backend_dev_description(device).decode("utf-8", "replace"))
    return tuple(found[_GPU] or found[_INTEGRATED])


def gpu_backends() -> tuple[str, ...]:
    """Kinds of GPU that this build has code for, such as `cuda` or `vulkan`, whether one is there or not."""
    names = {re.match(r"libggml-([a-z]+)", path.name) for path in (FOLDER / "lib").glob("libggml-*")}
    return tuple(sorted({name[1] for name in names if name} - _NO_GPU))
