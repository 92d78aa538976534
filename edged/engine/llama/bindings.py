"""llama.h as llama-cpp-python's ctypes declarations have it, without the rest of that package.

`import llama_cpp` brings its `Llama` class along, and with it SQLite, multiprocessing and more: memory of the
board that nothing here uses.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from edged.core.unloadable import why
from edged.errors import LibraryError

PACKAGE = "llama_cpp"


def _declarations() -> ModuleType:
    """`llama_cpp.llama_cpp`; whoever imports `llama_cpp` later gets all of it, as ever."""
    if PACKAGE in sys.modules:
        return importlib.import_module(f"{PACKAGE}.{PACKAGE}")
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{PACKAGE}'", name=PACKAGE)
    # A package whose own __init__ is not run: it only says where its files are.
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{PACKAGE}.{PACKAGE}")
    except RuntimeError as error:  # the bindings' own words around the loader's
        raise LibraryError(f"llama.cpp cannot be loaded: {why(str(error.__context__ or error))}") from error
    finally:
        del sys.modules[PACKAGE]


def _version() -> str:
    """The package's, as its own text has it: importlib.metadata brings `email` and `zipfile` along, 2 MB."""
    text = (FOLDER / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else importlib.import_module("importlib.metadata").version("llama-cpp-python")


C = _declarations()
"""Every function, type and constant of llama.h, by its name there."""
FOLDER = Path(str(C.__file__)).parent
"""Where the package and its libraries are."""
VERSION = _version()


def give_back() -> None:
    """Return memory that was freed to the system, where the C library can (glibc's malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
