"""KV cache, batch and forward passes. Belongs to the model thread, but for `Context.stop_pass`."""

from __future__ import annotations

import ctypes

from edged.errors import ModelError

from .bindings import C
from .model import Model, Token

KV_TYPES = {"f16": 1, "q8_0": 8}
"""ggml_type numbers (ggml.h) of the KV cache types that settings offer."""
NO_SLOT = 1
ABORTED = 2
"""Return values of llama_decode: no room in the KV cache; aborted by the callback."""


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
        self._window = int(C.llama_model_n_swa(model.pointer))
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
            False where this model's memory cannot be cut there (recurrent ones): then all of the sequence is gone.
        """
        if C.llama_memory_seq_rm(self._memory, sequence, start, -1) and self._sees_back(sequence, start):
            return True
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def _sees_back(self, sequence: int, position: int) -> bool:
        """Whether all tokens are there that a token at `position` attends to.

        Layers with a sliding window, as Gemma's have, attend to the last tokens only, and no more of them stand in
        a state: of a sequence that was loaded and is cut further back, some are missing, or all.
        """
        if position == 0 or self._window == 0:
            return True
        first = C.llama_memory_seq_pos_min(self._memory, sequence)  # in the layers that have the fewest
        return bool(0 <= first <= max(0, position - self._window + 1))

    def copy(self, source: int, target: int) -> None:
        """Copy a whole sequence; `target` must be empty. Streams are copied whole: `forget` the tail after."""
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def save(self, sequence: int) -> bytearray:
        """What the cache holds of a sequence: some tens of kilobytes a token.

        The format is llama.cpp's own and changes with its version; `load` trusts it blindly.
        """
        data = bytearray(C.llama_state_seq_get_size(self._context, sequence))
        view = (ctypes.c_uint8 * len(data)).from_buffer(data)
        written = C.llama_state_seq_get_data(self._context, view, len(data), sequence)
        del view
        return data[:written] if written < len(data) else data

    def load(self, sequence: int, data: bytearray) -> bool:
        """Put what `save` returned into a sequence, in place of what it holds; False leaves it empty."""
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        view = (ctypes.c_uint8 * len(data)).from_buffer(data)
        read = C.llama_state_seq_set_data(self._context, view, len(data), sequence)
        if read == len(data):
            return True
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False
