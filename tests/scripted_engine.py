"""`python -m scripted_engine FD`: the engine process with a scripted model in place of llama.cpp.

All of `edged.engine` runs as it is but the model: its answer is `w0 w1 w2 ...` and what it does is written in
the prompt, as `key=value` words: `tokens` of the answer (3), `step_ms` of a pass that writes (0), `read_ms` to
read one token of the prompt (0), `crash` a signal that the process sends itself, `hang` the model thread, both
after `at` tokens of the answer (2), `measure` a signal, a `defect` or `endless` before that. Words of the
prompt are its tokens, so a test knows the numbers; one more is the template's.

From the environment: SCRIPTED_THINKS=1 makes the answers begin inside the thinking; while the file that
SCRIPTED_ABORT names exists, loading ends in SIGABRT, and while that of SCRIPTED_LOADS does, it goes on.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from edged.core.batching import ROWS_MAX
from edged.engine.chat import ChatTemplate
from edged.engine.messages import Configure, ModelInfo
from edged.engine.ports import ABORTED, Chooser
from edged.engine.prepare import Preparation
from edged.engine.process import LoadedModel, run

GO, END, CLOSE, WORD0 = 1, 2, 3, 1_000_000
"""Tokens: the answer begins; the answer ends; the thinking ends; the first word of an answer."""
CONTROL = {"<go>": GO, "</think>": CLOSE}
TEMPLATE = "{% for turn in messages %}{{ turn.content }} {% endfor %}<go>"
THINKING = "{% for turn in messages %}{{ turn.content }} {% endfor %}<think> <go>"

_DIRECTIVE = re.compile(r"(tokens|step_ms|read_ms|crash|hang|at|measure)=(\w+)")


class WordVocabulary:
    """A token for each word, numbered as they turn up."""

    begin: int | None = None

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []
        self._lock = threading.Lock()

    def tokenize(self, text: str, *, special: bool, first: bool = False) -> list[int]:  # noqa: ARG002 - no space is put in front
        """Numbers of the words; what is in `CONTROL` is special where the engine wrote it."""
        fault = dict(_DIRECTIVE.findall(text)).get("measure")
        if fault == "defect":
            raise RuntimeError(f"a defect, and the prompt: {text}")
        while fault == "endless":
            time.sleep(0.02)
        if fault is not None:
            signal.raise_signal(signal.Signals[fault])  # in this very thread: it says nothing more
        with self._lock:
            return [CONTROL[w] if special and w in CONTROL else self._number(w) for w in text.split()]

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = 10 + len(self._words)
            self._words.append(word)
        return self._numbers[word]

    def word(self, token: int) -> str:
        """The word of a prompt."""
        return self._words[token - 10] if 10 <= token < 10 + len(self._words) else ""

    def piece(self, token: int) -> bytes:
        """Bytes of a word of an answer."""
        if token == CLOSE:
            return b"</think>"
        return b"" if token < WORD0 else f"w{token - WORD0} ".encode()

    def ends_answer(self, token: int) -> bool:
        """True for the one token that does."""
        return token == END

    def is_special(self, token: int) -> bool:
        """The same ones."""
        return self.is_control(token)

    def is_control(self, token: int) -> bool:
        """True for the tokens without text."""
        return token in {GO, END}


class ScriptedPasses:
    """A cache that holds tokens and nothing else, and passes that take the time they are told to.

    A script counts passes as tokens: nothing is drafted.
    """

    cuts, rewinds = False, True

    def __init__(self, vocabulary: WordVocabulary, slots: int, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self._vocabulary = vocabulary
        self._cells: list[list[int]] = [[] for _ in range(slots)]
        self._rows: list[tuple[int, int]] = []
        self._done: list[tuple[int, int]] = []
        self._stop = threading.Event()

    def add(self, token: int, position: int, sequence: int, *, logits: bool) -> int:
        """Append a row."""
        del logits
        assert len(self._cells[sequence]) == position, "a gap in the cache"
        self._cells[sequence].append(token)
        self._rows.append((sequence, position))
        return len(self._rows) - 1

    def least(self, loaded: int) -> int:
        """None."""
        del loaded
        return 0

    def decode(self, threads: int) -> int:
        """Take as long as the longest of the questions asks for; crash or hang where one says so."""
        del threads
        self._done, self._rows = self._rows, []
        counts: dict[int, int] = {}
        for sequence, _ in self._done:
            counts[sequence] = counts.get(sequence, 0) + 1
        pause_s = 0.0
        for sequence, rows in counts.items():
            script = self.script(sequence)
            self._misbehave(script, self.written(sequence))
            step_ms = script.get("read_ms", "0") if rows > 1 else script.get("step_ms", "0")
            pause_s = max(pause_s, float(step_ms) / 1000 * (max(1, rows)))
        if pause_s and self._stop.wait(pause_s):
            return ABORTED
        return 0

    def _misbehave(self, script: dict[str, str], written: int) -> None:
        if written != int(script.get("at", "2")):
            return
        if "crash" in script:
            os.kill(os.getpid(), signal.Signals[script["crash"]])
        if "hang" in script:
            time.sleep(3600)

    def script(self, sequence: int) -> dict[str, str]:
        """The directives of the prompt."""
        cells = self._cells[sequence]
        prompt = " ".join(map(self._vocabulary.word, cells[: cells.index(GO)] if GO in cells else cells))
        return dict(_DIRECTIVE.findall(prompt))

    def written(self, sequence: int) -> int:
        """Tokens of the answer in the cache; -1 while the prompt is read."""
        cells = self._cells[sequence]
        return len(cells) - 1 - cells.index(GO) if GO in cells else -1

    def next_token(self, row: int) -> int:
        """The next word of the answer that the question in this row gets."""
        sequence, _ = self._done[row]
        written = max(0, self.written(sequence))
        return END if written >= int(self.script(sequence).get("tokens", "3")) else WORD0 + written

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop tokens."""
        del self._cells[sequence][start:]
        return True

    def copy(self, source: int, target: int) -> None:
        """Copy a sequence."""
        self._cells[target] = list(self._cells[source])

    def save(self, sequence: int) -> bytearray:
        """The words of a sequence, eight bytes each; they mean something in this life of the process only."""
        return bytearray(array("q", self._cells[sequence]).tobytes())

    def load(self, sequence: int, data: bytearray) -> bool:
        """Put them back."""
        self._cells[sequence] = array("q", bytes(data)).tolist()
        return True

    def stop_pass(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002 - the port's signature
        """Abort the running pass."""
        if stop:
            self._stop.set()
        else:
            self._stop.clear()


class ScriptedChooser:
    """Chooses what the script says."""

    def __init__(self, passes: ScriptedPasses) -> None:
        self._passes = passes

    def choose(self, row: int) -> int:
        """The next token."""
        return self._passes.next_token(row)

    def choose_among(self, row: int, mask: bytes) -> int:
        """The lowest token that is allowed: the script knows no schema."""
        del row
        return next(8 * at + (byte & -byte).bit_length() - 1 for at, byte in enumerate(mask) if byte)

    def close(self) -> None:
        """Nothing to free."""


def load(setup: Configure, log: Callable[[str, str], None]) -> LoadedModel:
    """The scripted model, for any file."""
    fail = os.environ.get("SCRIPTED_ABORT")
    if fail and Path(fail).exists():
        os.abort()
    loads = os.environ.get("SCRIPTED_LOADS")
    while loads and Path(loads).exists():
        time.sleep(0.02)
    log("info", "scripted model")
    template = ChatTemplate(THINKING if os.environ.get("SCRIPTED_THINKS") else TEMPLATE)
    vocabulary = WordVocabulary()
    passes = ScriptedPasses(vocabulary, setup.slots, setup.batch_tokens or ROWS_MAX)
    preparation = Preparation(
        vocabulary=vocabulary,
        template=template,
        context=setup.context,
        system_prompt=setup.system_prompt,
        reasoning_budget=setup.reasoning_budget,
        delta_interval_s=setup.delta_interval_s,
    )

    def make_chooser(*, temperature: float, top_p: float, seed: int) -> Chooser:
        del temperature, top_p, seed
        return ScriptedChooser(passes)

    info = ModelInfo(
        name="scripted",
        architecture="script",
        quantisation="none",
        file_bytes=0,
        parameters=0,
        context_trained=setup.context,
        sha256=None,
        reasoning=template.tags is not None,
        kv_bytes_per_token=0,
    )
    return LoadedModel(vocabulary, passes, make_chooser, preparation, info)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), load))
