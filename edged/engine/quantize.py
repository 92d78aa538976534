"""Turns a GGUF model file into Q4_0, the format that llama.cpp repacks for the CPU's dot products.

    python -m edged.engine.quantize SOURCE DESTINATION

A process of its own, because llama.cpp may abort on a broken file: whoever wants a model quantised starts
this module and reads its exit code. The destination is there whole or not at all. Errors are one line on
standard error; exit codes: 0 done, 1 the model cannot be used, 2 wrong arguments. No question is served here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from edged.engine.llama.bindings import C
from edged.errors import ModelError

_ARGUMENTS = 3
_GGML_LOG_LEVEL_ERROR = 4  # ggml.h


def quantize(source: Path, destination: Path) -> None:
    """Write `source` as Q4_0 into `destination`.

    Weights that are quantised already (Q4_1, Q8_0, ...) are quantised again: fit for a demo and for tests,
    while a model for production is best made from its f16 file.

    Raises:
        ModelError: the source is missing or no GGUF model, or the destination cannot be written.
    """
    if not source.is_file():
        raise ModelError(f"{source}: no such file")
    if not destination.parent.is_dir():
        raise ModelError(f"{destination.parent}: no such folder to write {destination.name} into")
    reasons: list[str] = []

    def on_log(level: int, text: bytes, _user: object) -> None:
        if level >= _GGML_LOG_LEVEL_ERROR and text.strip():  # the level above it continues a line
            reasons.append(text.decode("utf-8", "replace").strip())

    callback = C.llama_log_callback(on_log)
    C.llama_log_set(callback, ctypes.c_void_p(0))
    C.llama_backend_init()
    parameters = C.llama_model_quantize_default_params()
    parameters.ftype = C.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.allow_requantize = True
    parameters.nthread = len(os.sched_getaffinity(0))
    part = destination.with_name(f"{destination.name}.part")
    try:
        part.unlink(missing_ok=True)  # what lies there may be a link, see edged.whole_file
        status = C.llama_model_quantize(os.fsencode(source), os.fsencode(part), ctypes.byref(parameters))
        if status != 0:
            raise ModelError(f"{source}: {reasons[-1] if reasons else f'llama.cpp refuses it ({status})'}")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(destination)
    except OSError as error:
        raise ModelError(f"{destination}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
        C.llama_log_set(C.llama_log_callback(), ctypes.c_void_p(0))  # `callback` ends with this function


def main(arguments: list[str]) -> int:
    """Run the command line described above; returns the exit code."""
    if len(arguments) != _ARGUMENTS:
        sys.stderr.write("usage: python -m edged.engine.quantize SOURCE DESTINATION\n")
        return 2
    try:
        quantize(Path(arguments[1]), Path(arguments[2]))
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
