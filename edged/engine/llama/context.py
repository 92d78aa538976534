"""KV cache, batch and forward passes. Belongs to the model thread, but for `Context.stop_pass`."""

from __future__ import annotations

import ctypes
import time

from edged.core.padding import Padding, missing
from edged.errors import ModelError

from .bindings import C
from .model import Model, Token
from .rows import Row, idle_rows

KV_TYPES = {"f16": 1, "q8_0": 8}
"""ggml_type numbers (ggml.h) of the KV cache types that settings offer."""
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
"""llama_flash_attn_type (llama.h)."""


class Context:
    """KV cache, batch and forward passes.

    A pass of few rows may be given idle ones, where that makes it faster, see `core.padding`: they are gone from
    the cache when `decode` returns, and no row of the caller's sees them.

    Args:
        model: what to run.
        sequences: how many sequences run side by side, each with a KV stream of its own.
        context: tokens that one sequence can hold, at most.
        batch_tokens: rows of one forward pass, at most.
        threads: threads for the warm-up; `decode` is told for each pass.
        kv_type: a key of `KV_TYPES`.
        flash_attention: a key of `FLASH_ATTENTION`; a `q8_0` cache needs it.
        padding: decides about idle rows.

    Raises:
        ModelError: there is not enough memory, or the model cannot be run with these numbers.
    """

    def __init__(
        self,
        model: Model,
        *,
        sequences: int,
        context: int,
        batch_tokens: int,
        threads: int,
        kv_type: str,
        flash_attention: str = "auto",
        padding: Padding | None = None,
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
        params.flash_attn_type = FLASH_ATTENTION[flash_attention]
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
            size = f" ({need // 2**20} MiB of KV cache)" if need else ""
            raise ModelError(
                f"llama.cpp cannot make a context of {sequences} x {context} tokens{size}; "
                "lower engine.slots or engine.context_max"
            )
        self._memory = C.llama_get_memory(self._context)
        self._batch = C.llama_batch_init(batch_tokens, 0, 1)
        self._threads = threads
        self._window = int(C.llama_model_n_swa(model.pointer))
        self._sequences, self._room = sequences, context
        self._padding = padding or Padding()
        # Idle rows must be taken out again, as nothing recurrent can be, and a window might make room for them.
        self.rewinds = not (
            C.llama_model_is_recurrent(model.pointer) or C.llama_model_is_hybrid(model.pointer)
        )
        self.cuts = self.rewinds and self._window == 0
        self._rows: list[Row] = []
        self.first_row = 0
        self.batch_tokens = batch_tokens
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
        """Append a row to the next forward pass; returns its number, which `Sampler.choose` takes."""
        self._rows.append(Row(token, position, sequence, logits))
        return len(self._rows) - 1

    def decode(self, threads: int) -> int:
        """Run one forward pass over the rows added since the last one to its end, and empty the batch.

        Returns:
            0, or 1 where the cache has no room, or `ABORTED` (then some rows may stand in the cache: forget
            them), or a negative number for a failure inside llama.cpp.
        """
        if threads != self._threads:
            # llama.cpp takes the first count for one row and the second for more; what counts as decoding is
            # the caller's knowledge, so both are the same here.
            C.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        rows, self._rows = self._rows, []
        before, after = self._idle_rows(rows)
        could = bool(before or after)
        padded = could and self._padding.pays(len(rows), threads)
        if not padded:
            before, after = [], []
        self.first_row = len(before)
        self._fill([*before, *rows, *after])
        begun = time.perf_counter()
        code = int(C.llama_decode(self._context, self._batch))
        C.llama_synchronize(self._context)  # a GPU may still be at work: the caller times this as well
        seconds = time.perf_counter() - begun
        for idle in (*before, *after):
            C.llama_memory_seq_rm(self._memory, idle.sequence, idle.position, -1)
        if could and code == 0:
            self._padding.passed(len(rows), threads, padded=padded, seconds=seconds)
        return code

    def _idle_rows(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        count = missing(len(rows)) if self.cuts else 0
        if not count or len(rows) + count > self.batch_tokens:
            return [], []
        return idle_rows(rows, count, sequences=self._sequences, room=self._room, end=self._end)

    def _end(self, sequence: int) -> int:
        return int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1  # -1 of an empty one

    def _fill(self, rows: list[Row]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, row in enumerate(rows):
            batch.token[index] = row.token
            batch.pos[index] = row.position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row.sequence
            batch.logits[index] = row.logits

    def stop_pass(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002 - a flag is what it is
        """Make the running forward pass return `ABORTED`; may be called from any thread.

        A pass on a GPU goes on to its end all the same: only llama.cpp's CPU code looks at the flag.
        """
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

    def least(self, loaded: int) -> int:
        """Of a state that was loaded with so many tokens, how many must stay; 0 where it can be cut anywhere."""
        if not self.rewinds:
            return loaded
        return loaded - 1 if 0 < self._window < loaded else 0

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
