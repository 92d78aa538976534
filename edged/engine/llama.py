"""llama.cpp through llama-cpp-python's low-level bindings: the one file that imports llama_cpp.

Three owners of C memory: `Model` (weights and vocabulary), `Context` (KV cache and batch), `Sampler` (one
sequence's choice of tokens). `Model`'s tokenizer may be called from any thread; all the rest belongs to the
model thread. Nothing here knows of questions, slots or policy. Symbols named below are those of llama.h.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp as C  # noqa: N812 - it is the C interface, and reads as such
import numpy as np
from llguidance import LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab

from edged.errors import ModelError

Token = int
TOKEN_BYTES_MAX = 256
"""Room for one token's text; llama_token_to_piece asks for more where that is not enough."""
KV_TYPES = {"f16": 1, "q8_0": 8}
"""ggml_type numbers (ggml.h) of the KV cache types that settings offer."""
KV_TYPE_BITS = {"f16": 16.0, "q8_0": 8.5}
NO_SLOT = 1
ABORTED = 2
"""Return values of llama_decode: no room in the KV cache; aborted by the callback."""

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
    folder = Path(C.__file__).parent / "lib"
    library = folder / "libggml.so"
    if not library.exists():
        return
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if ggml.ggml_backend_reg_count() == 0:
        ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))


def system_info() -> str:
    """Instruction sets that the CPU code uses, as llama.cpp names them."""
    return str(C.llama_print_system_info().decode())


class Model:
    """Weights and vocabulary of one GGUF file.

    Args:
        path: the file.
        gpu_layers: layers to offload; 0 leaves all on the CPU.
        lock_memory: keep the weights from being paged out (mlock(2); needs LimitMEMLOCK).

    Raises:
        ModelError: llama.cpp would not load it.
    """

    def __init__(self, path: Path, *, gpu_layers: int = 0, lock_memory: bool = False) -> None:
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if lock_memory:
            params.load_mode = C.LLAMA_LOAD_MODE_MLOCK
        self._model = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load this file; it must be a complete GGUF model")
        self._vocab = C.llama_model_get_vocab(self._model)
        self._pieces: dict[Token, bytes] = {}
        self.vocabulary: int = C.llama_vocab_n_tokens(self._vocab)
        self.context_trained: int = C.llama_model_n_ctx_train(self._model)
        self.parameters: int = C.llama_model_n_params(self._model)
        self.metadata = self._read_metadata()
        if self.vocabulary == 0:
            raise ModelError(f"{path}: this model has no vocabulary; use a text-generation model")

    @property
    def pointer(self) -> object:
        """The C model, for `Context`."""
        return self._model

    def close(self) -> None:
        """Free the weights; every `Context` on them must be closed before."""
        C.llama_model_free(self._model)

    def _read_metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for index in range(C.llama_model_meta_count(self._model)):
            key = self._meta(C.llama_model_meta_key_by_index, index, 256)
            found[key] = self._meta(C.llama_model_meta_val_str_by_index, index, 4096)
        return found

    def _meta(self, read: Callable[..., int], index: int, room: int) -> str:
        buffer = ctypes.create_string_buffer(room)
        length = read(self._model, index, buffer, room)
        if length >= room:  # it was cut; the return value is the true length
            buffer = ctypes.create_string_buffer(length + 1)
            read(self._model, index, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and quantisation, such as `llama 134M Q4_0`."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_desc(self._model, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    @property
    def file_type(self) -> str:
        """Quantisation of most weights, such as `Q4_0`."""
        name = C.llama_ftype_name(C.llama_model_ftype(self._model))
        return str(name.decode()) if name else "unknown"

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that the file brings for conversations."""
        text = C.llama_model_chat_template(self._model, None)
        return text.decode("utf-8", "replace") if text else None

    def kv_bytes_per_token(self, kv_type: str) -> int:
        """Bytes that one token occupies in the KV cache, over all layers, keys and values."""
        heads = C.llama_model_n_head(self._model)
        per_head = C.llama_model_n_embd(self._model) // max(1, heads)
        per_layer = 2 * per_head * C.llama_model_n_head_kv(self._model)
        return int(C.llama_model_n_layer(self._model) * per_layer * KV_TYPE_BITS[kv_type] / 8)

    def tokenize(self, text: str, *, special: bool) -> list[Token]:
        """Tokens of `text`, without a begin-of-sequence token.

        Args:
            text: any text; NUL characters are kept.
            special: True lets `<|im_start|>` and its like become control tokens. Only text of the template
                itself may be read so; a user's text never.
        """
        tokens = self._tokenize(text, special=special)
        tags = set() if special else {self._text(token) for token in tokens if self._is_tag(token)}
        # llama.cpp looks for user-defined tokens, R1's `<think>` among them, whatever it is told. A tag that
        # is cut behind its bracket is text like any other.
        cuts = [at.start() + 1 for tag in tags for at in re.finditer(re.escape(tag), text)]
        if not cuts:
            return tokens
        parts = [text[begin:end] for begin, end in itertools.pairwise((0, *sorted(cuts), len(text)))]
        return [token for part in parts for token in self.tokenize(part, special=False)]

    def _is_tag(self, token: Token) -> bool:
        if not C.llama_vocab_get_attr(self._vocab, token) & C.LLAMA_TOKEN_ATTR_USER_DEFINED:
            return False
        text = self._text(token)
        return len(text) > 1 and (text[0], text[-1]) in {("<", ">"), ("[", "]")}

    def _text(self, token: Token) -> str:
        return self.piece(token).decode("utf-8", "replace")

    def _tokenize(self, text: str, *, special: bool) -> list[Token]:
        if not text:
            return []
        data = text.encode("utf-8")
        room = len(data) + 8
        tokens = (C.llama_token * room)()
        count = C.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
        if count < 0:
            room = -count
            tokens = (C.llama_token * room)()
            count = C.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
        return list(tokens[:count])

    def piece(self, token: Token) -> bytes:
        """Text of one token, control tokens included; not always whole UTF-8 characters."""
        known = self._pieces.get(token)
        if known is not None:
            return known
        room = TOKEN_BYTES_MAX
        buffer = ctypes.create_string_buffer(room)
        length = C.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        if length < 0:
            room = -length
            buffer = ctypes.create_string_buffer(room)
            length = C.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        self._pieces[token] = text = buffer.raw[:length]
        return text

    def ends_answer(self, token: Token) -> bool:
        """True for the tokens with which the model says that it is finished."""
        return bool(C.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: Token) -> bool:
        """True for tokens that steer and have no text of their own to show."""
        return bool(C.llama_vocab_is_control(self._vocab, token))

    def grammar_tables(self) -> LLTokenizer:
        """Tables of the vocabulary as llguidance wants them, for `edged.engine.constraint`; takes a second."""
        ends = [token for token in range(self.vocabulary) if self.ends_answer(token)]
        return lltokenizer_from_vocab(self._vocab, eos_token=ends)

    @property
    def begin(self) -> Token | None:
        """Token to begin a sequence with, where the file asks for one."""
        wanted = C.llama_vocab_get_add_bos(self._vocab)
        token = int(C.llama_vocab_bos(self._vocab))
        return token if wanted and token >= 0 else None

    def special_text(self, name: str) -> str:
        """Text of a special token, for the template: `name` is `bos` or `eos`; empty where there is none."""
        token = int(C.llama_vocab_bos(self._vocab) if name == "bos" else C.llama_vocab_eos(self._vocab))
        return self.piece(token).decode("utf-8", "replace") if token >= 0 else ""


class Context:
    """KV cache, batch and forward passes.

    Args:
        model: what to run.
        sequences: how many sequences run side by side, each with a KV stream of its own.
        context: tokens that one sequence can hold, at most.
        batch_tokens: rows of one forward pass, at most.
        threads: threads for the warm-up; `decode` is told for each pass.
        kv_type: a key of `KV_TYPES`.

    Raises:
        ModelError: there is not enough memory, or the model cannot be run with these numbers.
    """

    def __init__(
        self, model: Model, *, sequences: int, context: int, batch_tokens: int, threads: int, kv_type: str
    ) -> None:
        params = C.llama_context_default_params()
        params.n_ctx = sequences * context
        params.n_seq_max = sequences
        params.n_batch = batch_tokens
        params.n_ubatch = batch_tokens
        params.n_threads = threads
        params.n_threads_batch = threads
        # A stream for each sequence: attention then reads one sequence's cells only. In a unified cache a lone
        # question would pay for the prompts that idle slots keep.
        params.kv_unified = False
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.no_perf = True
        # The stop flag is read by every graph node of every pass, so the callback must not be Python: strlen(3)
        # of a two-byte buffer is 0 or 1, which is the C function `bool (*)(void *)` we need, for free.
        self._stop_flag = ctypes.create_string_buffer(2)
        libc = ctypes.CDLL(None)
        params.abort_callback = ctypes.cast(libc.strlen, C.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._stop_flag, ctypes.c_void_p)
        self._context = C.llama_init_from_model(model.pointer, params)
        if not self._context:
            need = sequences * context * model.kv_bytes_per_token(kv_type)
            raise ModelError(
                f"llama.cpp cannot make a context of {sequences} x {context} tokens "
                f"({need // 2**20} MiB of KV cache); lower engine.slots or engine.context_max"
            )
        self._memory = C.llama_get_memory(self._context)
        self._batch = C.llama_batch_init(batch_tokens, 0, 1)
        self._threads = threads
        self.batch_tokens = batch_tokens
        self.rows = 0
        self.vocabulary = model.vocabulary

    @property
    def pointer(self) -> object:
        """The C context, for `Sampler`."""
        return self._context

    def close(self) -> None:
        """Free the KV cache and the batch."""
        C.llama_batch_free(self._batch)
        C.llama_free(self._context)

    def add(self, token: Token, position: int, sequence: int, *, logits: bool) -> int:
        """Append a row to the next forward pass; returns its index, which `Sampler.choose` takes."""
        row = self.rows
        batch = self._batch
        batch.token[row] = token
        batch.pos[row] = position
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = sequence
        batch.logits[row] = logits
        self.rows = row + 1
        return row

    def decode(self, threads: int) -> int:
        """Run one forward pass over the rows added since the last one, and empty the batch.

        Returns:
            0, or `NO_SLOT`, or `ABORTED` (then some rows may stand in the cache: forget them), or a negative
            number for a failure inside llama.cpp.
        """
        if threads != self._threads:
            # llama.cpp takes the first count for one row and the second for more; what counts as decoding is
            # the caller's knowledge, so both are the same here.
            C.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        self._batch.n_tokens = self.rows
        self.rows = 0
        return int(C.llama_decode(self._context, self._batch))

    def stop_pass(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002 - a flag is what it is
        """Make the running forward pass return `ABORTED`; may be called from any thread."""
        self._stop_flag[0] = b"\1" if stop else b"\0"

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's tokens from position `start` on.

        Returns:
            False where this model's memory cannot be cut (recurrent ones): then all of the sequence is gone.
        """
        if C.llama_memory_seq_rm(self._memory, sequence, start, -1):
            return True
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def copy(self, source: int, target: int) -> None:
        """Copy a whole sequence; `target` must be empty. Streams are copied whole: `forget` the tail after."""
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)


class Sampler:
    """How one sequence chooses its tokens.

    Args:
        context: whose logits it reads.
        temperature: 0 takes the most likely token, always; else at most 2.
        top_p: nucleus, above 0 and at most 1.
        seed: makes a run repeatable on one machine.
        top_k: candidates looked at; 40 is llama.cpp's own default and keeps a large vocabulary cheap.
    """

    def __init__(
        self, context: Context, *, temperature: float, top_p: float, seed: int, top_k: int = 40
    ) -> None:
        self._context = context.pointer
        self._vocabulary = context.vocabulary
        self._chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if temperature == 0:
            C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_greedy())
            return
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_top_k(top_k))
        if top_p < 1:
            C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_top_p(top_p, 1))
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_temp(temperature))
        C.llama_sampler_chain_add(self._chain, C.llama_sampler_init_dist(seed))

    def choose(self, row: int) -> Token:
        """The next token, from the logits of `row` of the last forward pass."""
        return int(C.llama_sampler_sample(self._chain, self._context, row))

    def choose_among(self, row: int, mask: bytes) -> Token:
        """The next token among those whose bit is set in `mask`, lowest bit of the first byte first.

        The masked logits stay masked: call it after `choose` has been tried. Both together draw from the
        model's distribution restricted to the mask, as rejection sampling does.
        """
        pointer = C.llama_get_logits_ith(self._context, row)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary,))
        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=self._vocabulary, bitorder="little")
        logits[bits == 0] = -np.inf
        return self.choose(row)

    def close(self) -> None:
        """Free the chain."""
        C.llama_sampler_free(self._chain)


def read_tokens(model: Model, tokens: Sequence[Token]) -> str:
    """Text of tokens, for people to read."""
    return b"".join(model.piece(token) for token in tokens).decode("utf-8", "replace")
