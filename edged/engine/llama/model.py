"""Weights and vocabulary. The tokenizer may be called from any thread."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

from edged.core.model_shape import KV_BITS, why_unfit
from edged.errors import ModelError

from .bindings import C

Token = int
TOKEN_BYTES_MAX = 256
"""Room for one token's text; llama_token_to_piece asks for more where that is not enough."""
GUARD = "\x01"
"""A character that no token of more than one holds, so that it never joins what follows it."""
PART_MAX = 4096
"""Characters that are tokenized at once. For many models (Ministral 3, Phi-4, DeepSeek) llama.cpp cuts words by
std::regex, which takes some 320 bytes of stack for each character of one: 26,000 of a letter ended the process, and
so did slashes and line breaks in turn."""


class Model:
    """Weights and vocabulary of one GGUF file.

    Args:
        path: the file.
        gpu_layers: layers to offload; 0 leaves all on the CPU.

    Raises:
        ModelError: llama.cpp would not load it.
    """

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        # Where there are GPUs, llama.cpp lays the weights out for them and computes prompts of 32 tokens and more
        # there, with 0 layers as well; only an empty list of devices leaves them alone.
        none = (ctypes.c_void_p * 1)(None)
        if gpu_layers == 0:
            params.devices = ctypes.cast(none, ctypes.c_void_p)
        # Not mapped: for Q4_0, llama.cpp keeps a copy of its own that suits the CPU's instructions, and the mapped
        # file would stand in memory beside it (2.1 instead of 1.4 GB for 1.5B parameters, at the same speed). And
        # a file that is overwritten or cut short while it is mapped kills the process.
        params.load_mode = C.LLAMA_LOAD_MODE_NONE
        self._model = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load this file; it must be a complete GGUF model")
        self._vocab = C.llama_model_get_vocab(self._model)
        self._pieces: dict[Token, bytes] = {}
        self.vocabulary: int = C.llama_vocab_n_tokens(self._vocab)
        self.context_trained: int = C.llama_model_n_ctx_train(self._model)
        self.parameters: int = C.llama_model_n_params(self._model)
        self.metadata = self._read_metadata()
        self._guard = self._tokenize(GUARD, special=False)
        self._spaces = b"".join(map(self.piece, self._guard)) == f" {GUARD}".encode()
        if self.vocabulary == 0:
            raise ModelError(f"{path}: this model has no vocabulary; use a text-generation model")
        unfit = why_unfit(self.metadata)
        if not unfit and C.llama_model_has_encoder(self._model):
            unfit = "it reads with an encoder, as T5 does, and edged runs models without one"
        if unfit:
            raise ModelError(f"{path}: {unfit}; set model.path to a text-generation model")

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
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(C.llama_model_n_embd(self._model))

    @property
    def vocabulary_pointer(self) -> object:
        """The C vocabulary, for llguidance."""
        return self._vocab

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
        """Bytes that one token occupies in the KV cache, over all layers, keys and values.

        By the first layer, as llama.cpp tells of no other: 0 where that one has no attention, as LFM2's.
        """
        both = self._head_width("key") + self._head_width("value")
        per_layer = both * C.llama_model_n_head_kv(self._model)
        return int(C.llama_model_n_layer(self._model) * per_layer * KV_BITS[kv_type] / 8)

    def _head_width(self, kind: str) -> int:
        """Numbers of one head's key or value: Gemma's and Qwen3's are no equal parts of the width."""
        architecture = self.metadata.get("general.architecture", "")
        told = self.metadata.get(f"{architecture}.attention.{kind}_length", "")
        return int(told) if told.isdecimal() else self.width // max(1, C.llama_model_n_head(self._model))

    def tokenize(self, text: str, *, special: bool, first: bool = False) -> list[Token]:
        """Tokens of `text`, without a begin-of-sequence token.

        llama.cpp puts a space in front of what it is given, and of what follows a control token in it, where the
        vocabulary is SentencePiece's (Llama 2's, TinyLlama's, Phi-3's): a model was trained so.

        Args:
            text: any text; NUL characters are kept.
            special: True lets `<|im_start|>` and its like become control tokens. Only text of the template
                itself may be read so; a user's text never.
            first: the text follows a control token, or nothing. Else no space is put in front of it.
        """
        if cuts := _cuts(text):
            return self._in_parts(text, cuts, special=special, first=first)
        guarded = self._spaces and not first
        tokens = self._tokenize(GUARD + text if guarded else text, special=special)
        if guarded:
            del tokens[: len(self._guard)]
        tags = set() if special else {self._text(token) for token in tokens if self._is_tag(token)}
        # llama.cpp looks for user-defined tokens, R1's `<think>` among them, whatever it is told. A tag that
        # is cut behind its bracket is text like any other.
        cuts = sorted(at.start() + 1 for tag in tags for at in re.finditer(re.escape(tag), text))
        return self._in_parts(text, cuts, special=False, first=first) if cuts else tokens

    def _in_parts(self, text: str, cuts: list[int], *, special: bool, first: bool) -> list[Token]:
        parts = [text[begin:end] for begin, end in itertools.pairwise((0, *cuts, len(text)))]
        return [
            token
            for at, part in enumerate(parts)
            for token in self.tokenize(part, special=special, first=first and at == 0)
        ]

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
        if not 0 <= token < self.vocabulary:  # out of a session that another model began
            return b""
        self._pieces[token] = text = self.read_piece(token)
        return text

    def read_piece(self, token: Token) -> bytes:
        """As `piece`, for tokens of the vocabulary, without keeping the text in memory."""
        room = TOKEN_BYTES_MAX
        buffer = ctypes.create_string_buffer(room)
        length = C.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        if length < 0:
            room = -length
            buffer = ctypes.create_string_buffer(room)
            length = C.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        return buffer.raw[:length]

    def ends_answer(self, token: Token) -> bool:
        """True for the tokens with which the model says that it is finished."""
        return bool(C.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: Token) -> bool:
        """True for tokens that steer and have no text of their own to show."""
        return bool(C.llama_vocab_is_control(self._vocab, token))

    def is_special(self, token: Token) -> bool:
        """True for control tokens, and for user-defined ones that are written as a tag, such as `<tool_call>`."""
        return self.is_control(token) or (self._is_tag(token) and self.piece(token).startswith(b"<"))

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


def _cuts(text: str) -> list[int]:
    """Where a text is cut so that no part of it is longer than `PART_MAX`: where words begin, if they do."""
    cuts = [0]
    while len(text) - cuts[-1] > PART_MAX:
        begin, end = cuts[-1] + 1, cuts[-1] + PART_MAX
        found = (at for sign in " \n" if (at := text.rfind(sign, begin, end)) > 0)
        cuts.append(next(found, end))
    return cuts[1:]
