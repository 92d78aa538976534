"""llama.cpp through llama-cpp-python's low-level bindings: the one room that imports llama_cpp for inference.

Three owners of C memory: `Model` (weights and vocabulary), `Context` (KV cache and batch), `Sampler` (one
sequence's choice of tokens). `Model`'s tokenizer may be called from any thread; all the rest belongs to the
model thread. Nothing here knows of questions, slots or policy. Symbols named here are those of llama.h.
"""

from .bindings import give_back
from .context import KV_TYPES, Context
from .devices import gpu_backends, gpus
from .library import LogLine, start, system_info, version
from .model import Model, Token
from .sampler import Sampler

__all__ = [
    "KV_TYPES",
    "Context",
    "LogLine",
    "Model",
    "Sampler",
    "Token",
    "give_back",
    "gpu_backends",
    "gpus",
    "start",
    "system_info",
    "version",
]
