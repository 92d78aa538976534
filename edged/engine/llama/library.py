"""The library itself: its plug-ins, its log, what it can do on this CPU. Once a process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from .bindings import FOLDER, VERSION, C

LogLine = Callable[[str, str], None]
"""Takes level (`debug`, `info`, `warning`, `error`) and text of one of llama.cpp's own log lines."""

_LEVELS = {1: "debug", 2: "info", 3: "warning", 4: "error"}  # GGML_LOG_LEVEL_* of ggml.h
_kept_alive: list[object] = []  # C keeps pointers to these for the life of the process


def start(log: LogLine) -> None:
    """Load CPU plug-ins where the build has them, and send llama.cpp's log to `log`. Once a process."""

    def on_log(level: int, text: bytes, _user: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        name = _LEVELS.get(level)
        if line and name is not None:
            log(name, line)

    callback = C.llama_log_callback(on_log)
    _kept_alive.append(callback)
    C.llama_log_set(callback, ctypes.c_void_p(0))
    _load_plugins()
    C.llama_backend_init()


def _load_plugins() -> None:
    """A build with GGML_BACKEND_DL keeps its CPU code in plug-ins, one for each instruction set.

    Nothing in libllama or its Python bindings loads them ("no backends are loaded"), so we do; a build with
    the CPU code linked in has registered it by now and is left alone.
    """
    folder = FOLDER / "lib"
    library = folder / "libggml.so"
    if not library.exists():
        return
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if ggml.ggml_backend_reg_count() == 0:
        ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))


def version() -> str:
    """Version of the bindings, and so of llama.cpp, whose states of the KV cache change with it."""
    return VERSION


def system_info() -> str:
    """Instruction sets that the CPU code uses, as llama.cpp names them."""
    return str(C.llama_print_system_info().decode())
