"""The prompts on disk: what is found of them, what goes, and that nothing damaged or foreign is ever taken."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from configured import configured

from edged.engine import state_file
from edged.engine.loading import load
from edged.engine.prefixes import ALLOWANCE, MEASURED_S, PAUSE_S, TOKENS_MIN, Prefixes, erase
from edged.engine.state_file import UnfitError

SLOW_S = 1.0
"""Seconds to compute a token: everything on disk is worth reading."""
HALL = list(range(1000, 1100))
"""A long beginning."""


class Clock:
    """Seconds that pass when told."""

    now, look_s = 0.0, 0.0

    def __call__(self) -> float:
        """The time; each look may take some."""
        self.now += self.look_s
        return self.now


class Shelf:
    """A store in a folder, which can be opened again and again.

    Attributes:
        lines: what it told the log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def open(self, key: str = "model", max_bytes: int = 100_000) -> Prefixes:
        """The store as a new life of the engine finds it."""
        return Prefixes(self.folder, key, max_bytes, lambda *line: self.lines.append(line), self.clock)

    @property
    def files(self) -> list[Path]:
        """The states in it."""
        return sorted(self.folder.glob("*.kv"))

    def events(self) -> list[str]:
        """Names of the lines that people are shown."""
        return [event for level, event, _ in self.lines if level != "debug"]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A folder that does not exist yet."""
    return Shelf(tmp_path / "prefixes")


def put(prefixes: Prefixes, tokens: list[int], state: bytes = b"state") -> None:
    """Write a state."""
    prefixes.put(tokens, bytearray(state))
    prefixes.settle()


def found(prefixes: Prefixes, tokens: list[int], have: int = 0, read_s: float = SLOW_S) -> bytes | None:
    """What a prompt gets."""
    stored = prefixes.fetch(tokens, have, read_s)
    return None if stored is None else bytes(stored.data)


def test_a_prompt_finds_its_beginning_after_a_restart(shelf: Shelf) -> None:
    """The file with the longest common beginning is read, whoever wrote it, and the tokens in it are known."""
    before = shelf.open()
    put(before, HALL, b"hall")
    put(before, [*HALL[:80], *range(70)], b"other")
    after = shelf.open()
    assert after.size_bytes == sum(path.stat().st_size for path in shelf.files) > 0
    assert found(after, [*HALL, 1, 2]) == b"hall"
    assert found(after, [*HALL[:80], 0, 1, 2, 3]) == b"other"
    stored = after.fetch([*HALL[:90], 7], 0, SLOW_S)
    assert stored is not None
    assert stored.tokens == HALL
    assert found(after, [7, *HALL]) is None
    assert after.loads == 3
    assert shelf.events() == []


def test_memory_that_does_not_go_back_gets_whole_files_only(shelf: Shelf) -> None:
    """A recurrent layer's state is of all the tokens in it: a prompt that goes on otherwise has no use for it."""
    prefixes = Prefixes(shelf.folder, "model", 100_000, lambda *_: None, shelf.clock, least=lambda size: size)
    put(prefixes, HALL, b"hall")
    put(prefixes, HALL[:70], b"beginning")
    assert prefixes.wants(HALL[:65])
    assert found(prefixes, [*HALL, 1]) == b"hall"
    assert found(prefixes, [*HALL[:90], 7, 8]) == b"beginning"
    assert found(prefixes, HALL[:70]) is None


def test_files_are_private(shelf: Shelf) -> None:
    """Only their owner may read prompts, whatever the umask."""
    mask = os.umask(0)
    try:
        put(shelf.open(), HALL)
    finally:
        os.umask(mask)
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in shelf.folder.iterdir()} == {0o600}
    assert {path.name for path in shelf.folder.iterdir()} == {state_file.name_of(HALL), ALLOWANCE}


@pytest.mark.parametrize(
    ("have", "read_s", "wanted"),
    [
        (0, SLOW_S, True),
        (len(HALL) - TOKENS_MIN, SLOW_S, True),
        (len(HALL) - TOKENS_MIN + 1, SLOW_S, False),
        (0, 0.0, False),
        (0, 2 * 4000 / 40e6 / 100, False),  # as fast as the read, twice over, but for the header
        (0, 4 * 4000 / 40e6 / 100, True),
    ],
)
def test_only_where_it_pays(shelf: Shelf, have: int, read_s: float, wanted: bool) -> None:  # noqa: FBT001 - a table
    """What the cache holds already, few tokens, or a model faster than the disk: then the file is left alone."""
    prefixes = shelf.open()
    put(prefixes, HALL, b"x" * 4000)
    assert (found(prefixes, [*HALL, 1], have, read_s) is not None) is wanted


def test_a_disk_that_was_slow_for_an_hour(shelf: Shelf) -> None:
    """Once it was found too slow nothing was read any more, and nothing told that its backup was over."""
    prefixes = shelf.open()
    put(prefixes, HALL, b"x" * 4000)
    read_s = 2e-5
    shelf.clock.look_s = 1.0
    reads = 0
    while found(prefixes, [*HALL, 1], 0, read_s) is not None:
        reads += 1
        assert reads < 9, "it learns nothing"
    shelf.clock.look_s = 0.0
    assert found(prefixes, [*HALL, 1], 0, read_s) is None
    shelf.clock.now += MEASURED_S
    assert found(prefixes, [*HALL, 1], 0, read_s) is not None
    assert found(prefixes, [*HALL, 1], 0, read_s) is not None, "it is quick, as the first one told"


def test_what_is_worth_writing(shelf: Shelf) -> None:
    """A prompt of some length of which a good part is new."""
    prefixes = shelf.open()
    assert prefixes.wants(HALL)
    assert not prefixes.wants(HALL[: TOKENS_MIN - 1])
    put(prefixes, HALL)
    assert not prefixes.wants(HALL)
    assert not prefixes.wants(HALL[:TOKENS_MIN])
    assert not prefixes.wants([*HALL, *range(TOKENS_MIN - 1)])
    assert prefixes.wants([*HALL, *range(TOKENS_MIN)])
    long = [*HALL, *range(400)]
    put(prefixes, long)
    assert not prefixes.wants([*long, *range(TOKENS_MIN)]), "less than a quarter is new"


def test_what_would_be_too_large_is_not_wanted(shelf: Shelf) -> None:
    """By the size of a token in the cache, before any of it is copied."""
    for token_bytes, wanted in ((80, True), (100, False)):
        prefixes = Prefixes(shelf.folder, "model", 10_000, lambda *_: None, token_bytes=token_bytes)
        assert prefixes.wants(HALL) is wanted


def test_what_turned_out_too_large_is_not_wanted_again(shelf: Shelf) -> None:
    """Of some models the size is not known before: one state is made in vain, and others are kept meanwhile."""
    prefixes = shelf.open(max_bytes=10_000)
    put(prefixes, HALL, b"x" * 10_000)
    assert not prefixes.wants([9, *HALL])
    assert not prefixes.writing, "there is no hour's pause for it"
    few = HALL[:TOKENS_MIN]
    assert prefixes.wants(few)
    put(prefixes, few)
    assert found(prefixes, [*few, 1]) is not None


def test_a_longer_one_takes_the_place_of_its_beginning(shelf: Shelf) -> None:
    """A conversation that goes on leaves one file, not one for each turn."""
    prefixes = shelf.open()
    put(prefixes, HALL)
    put(prefixes, [*HALL, *range(70)], b"longer")
    assert len(shelf.files) == 1
    assert found(prefixes, [*HALL, 5]) == b"longer"


def test_the_oldest_go_when_there_is_no_room(shelf: Shelf) -> None:
    """The bound holds for all files together; what was read lately stays; a state above it is not written."""
    prefixes = shelf.open(max_bytes=7000)
    for first in (1, 2, 3):
        put(prefixes, [first, *HALL], b"x" * 1500)
    assert found(prefixes, [1, *HALL, 9]) is not None
    put(prefixes, [4, *HALL], b"x" * 1500)
    assert prefixes.size_bytes <= 7000
    assert [n for n in (1, 2, 3, 4) if found(prefixes, [n, *HALL, 9])] == [1, 3, 4]
    put(prefixes, [5, *HALL], b"x" * 7000)
    assert found(prefixes, [5, *HALL, 9]) is None
    assert len(shelf.open(max_bytes=2500).fetch([4, *HALL, 9], 0, SLOW_S).data) == 1500  # type: ignore[union-attr]
    assert len(shelf.files) == 1


@pytest.mark.parametrize("at", [0, 3, 9, 12, 30, 200, 450, 480, 999, -1])
def test_a_flipped_bit(shelf: Shelf, at: int) -> None:
    """Wherever it is, nothing of the file is taken, by its own prompt or by the one it seems to hold; it goes."""
    put(shelf.open(), HALL, b"x" * 1000)
    [path] = shelf.files
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    prefixes = shelf.open()
    assert found(prefixes, [*HALL, 1]) is None
    if path.exists():
        assert found(prefixes, [*state_file.look(path)[0].tokens, 1]) is None
    assert shelf.files == []
    assert shelf.events() == ["prefix_removed"]


def test_any_bit_before_the_state_may_flip(tmp_path: Path) -> None:
    """Its header then tells of another prompt at most, never of more bytes than are there, nor of half a token."""
    path = tmp_path / "any.kv"
    state_file.write(path, "key", HALL[:20], bytearray(300))
    whole = path.read_bytes()
    for at in range(8 * (len(whole) - 300)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(UnfitError):
            state_file.read(path, "key", HALL[:20])
        with contextlib.suppress(UnfitError):
            header, _ = state_file.look(path)
            assert (len(header.tokens), header.size) == (20, 300)


def test_half_a_token(shelf: Shelf) -> None:
    """A file that says so of itself goes like any other that is none of ours, and the engine starts."""
    put(shelf.open(), HALL)
    (path,) = shelf.files
    head = msgspec.msgpack.encode(state_file.Header("model", bytes(4 * len(HALL) + 1), 0, b""))
    path.write_bytes(path.read_bytes()[:8] + len(head).to_bytes(4, "little") + head)
    assert found(shelf.open(), [*HALL, 1]) is None
    assert shelf.files == []


@pytest.mark.parametrize("size", [0, 5, 12, 100, 1000])
def test_a_file_that_was_cut(shelf: Shelf, size: int) -> None:
    """A power cut, or a full disk, at any moment."""
    put(shelf.open(), HALL, b"x" * 1000)
    os.truncate(shelf.files[0], size)
    assert found(shelf.open(), [*HALL, 1]) is None
    assert shelf.files == []
    assert shelf.events() == ["prefix_removed"]


def test_a_file_damaged_while_the_node_runs(shelf: Shelf) -> None:
    """It is found when it is read."""
    prefixes = shelf.open()
    put(prefixes, HALL, b"x" * 1000)
    os.truncate(shelf.files[0], 700)
    assert found(prefixes, [*HALL, 1]) is None
    assert (shelf.files, prefixes.size_bytes) == ([], 0)
    put(prefixes, HALL, b"x" * 1000)
    shelf.files[0].unlink()
    assert found(prefixes, [*HALL, 1]) is None
    assert shelf.events() == ["prefix_removed", "prefix_removed"]


def test_a_file_that_became_another_while_the_node_runs(shelf: Shelf) -> None:
    """Whole as it is, as when somebody puts back a copy of the folder: it would go on from what nobody said."""
    prefixes = shelf.open()
    put(prefixes, HALL, b"hall")
    put(prefixes, HALL[::-1], b"back")
    one, other = shelf.files
    other.replace(one)
    assert found(prefixes, [*HALL, 1]) is found(prefixes, [*HALL[::-1], 1]) is None
    put(prefixes, HALL, b"hall")
    (path,) = shelf.files
    state_file.write(path, "another model", HALL, bytearray(b"hers"))
    assert found(prefixes, [*HALL, 1]) is None
    assert shelf.files == []


def test_foreign_files(shelf: Shelf) -> None:
    """Files of another model, of nobody, and unfinished ones go; what is not ours by name is left alone."""
    put(shelf.open("other model"), HALL)
    (shelf.folder / "noise.kv").write_bytes(b"x" * 5000)
    (shelf.folder / "half.tmp").write_bytes(b"x")
    (shelf.folder / "notes.txt").write_text("mine")
    assert found(shelf.open(), [*HALL, 1]) is None
    assert {path.name for path in shelf.folder.iterdir()} == {ALLOWANCE, "notes.txt"}
    assert shelf.events() == ["prefix_removed", "prefix_removed"]


def test_a_state_that_the_cache_does_not_take(shelf: Shelf) -> None:
    """Its file goes."""
    prefixes = shelf.open()
    put(prefixes, HALL)
    stored = prefixes.fetch([*HALL, 1], 0, SLOW_S)
    assert stored is not None
    stored.reject()
    assert shelf.files == []
    assert found(prefixes, [*HALL, 1]) is None
    assert shelf.events() == ["prefix_removed"]


def test_few_states_wait_in_memory(shelf: Shelf) -> None:
    """Questions that begin alike share one; of others no more are read until those are used."""
    prefixes = shelf.open()
    for first in (1, 2, 3):
        put(prefixes, [first, *HALL])
    held = [prefixes.fetch([first, *HALL, 9], 0, SLOW_S) for first in (1, 1, 2)]
    assert held[0] is held[1] is not None
    assert held[2] is not None
    assert prefixes.fetch([3, *HALL, 9], 0, SLOW_S) is None
    held.clear()
    assert prefixes.fetch([3, *HALL, 9], 0, SLOW_S) is not None


def test_a_days_writing_is_bounded(shelf: Shelf) -> None:
    """Over restarts too: what a life has used of it, the next one does not have."""
    max_bytes = 10_000
    for life in range(6):
        prefixes = shelf.open(max_bytes=max_bytes)
        put(prefixes, [life, *HALL], b"x" * 2600)
    assert [n for n in range(6) if found(shelf.open(max_bytes=max_bytes), [n, *HALL, 9])] == [0, 1, 2]
    assert "prefix_allowance_used_up" in shelf.events()
    prefixes = shelf.open(max_bytes=max_bytes)
    put(prefixes, [9, *HALL], b"x" * 2600)
    assert prefixes.writing, "it looks again in an hour"
    shelf.clock.now += PAUSE_S * 12
    assert not prefixes.writing
    put(prefixes, [9, *HALL], b"x" * 2600)
    assert found(prefixes, [9, *HALL, 1]) is not None


def test_all_are_forgotten(shelf: Shelf) -> None:
    """Every file goes, the one that is being written too; the day's allowance does not grow by it."""
    prefixes = shelf.open()
    put(prefixes, HALL)
    prefixes.put([9, *HALL], bytearray(b"state"))
    prefixes.clear()
    assert shelf.files == []
    assert prefixes.size_bytes == 0
    assert found(prefixes, HALL) is None
    assert "prefixes_forgotten" in shelf.events()
    put(prefixes, HALL)
    assert found(prefixes, HALL) == b"state"


def test_an_unreadable_allowance_is_none(shelf: Shelf) -> None:
    """Who cannot tell what was written does not write before the time has passed."""
    put(shelf.open(), HALL)
    (shelf.folder / ALLOWANCE).write_text("nan")
    prefixes = shelf.open()
    put(prefixes, [1, *HALL])
    assert len(shelf.files) == 1


def test_the_journal_s_room_is_left(shelf: Shelf) -> None:
    """A disk that is nearly full is not filled with what can be computed: questions could not be stored then."""
    prefixes = Prefixes(
        shelf.folder,
        "model",
        100_000,
        lambda *line: shelf.lines.append(line),
        shelf.clock,
        spare_bytes=1 << 60,
    )
    put(prefixes, HALL)
    assert prefixes.writing
    assert shelf.files == []
    ((level, event, fields),) = shelf.lines
    assert (level, event) == ("warning", "prefix_not_written")
    assert "are the journal's; make room (df" in fields["reason"]
    put(shelf.open(), HALL)
    assert len(shelf.files) == 1


def test_a_disk_that_refuses(shelf: Shelf) -> None:
    """A folder that is gone costs a line and an hour, no question; half a file is never left."""
    prefixes = shelf.open()
    shutil.rmtree(shelf.folder)
    put(prefixes, HALL)
    assert prefixes.writing
    assert shelf.events() == ["prefix_not_written"]
    shelf.clock.now += PAUSE_S
    shelf.folder.mkdir()
    assert not prefixes.writing
    put(prefixes, HALL)
    assert found(prefixes, [*HALL, 1]) is not None


def test_a_folder_that_cannot_be_used(shelf: Shelf) -> None:
    """The node runs without it, and says why."""
    shelf.folder.write_text("a file")
    prefixes = shelf.open()
    assert shelf.events() == ["prefixes_unusable"]
    assert prefixes.writing
    assert not prefixes.wants(HALL)
    assert found(prefixes, [*HALL, 1]) is None


def test_what_cannot_be_removed(shelf: Shelf) -> None:
    """Something that will not go, where an earlier life left half a file: the engine starts all the same."""
    put(shelf.open(), HALL)
    (shelf.folder / f"half{state_file.UNFINISHED}").mkdir()
    prefixes = shelf.open(max_bytes=1)
    assert shelf.events() == ["prefixes_unusable"]
    assert prefixes.writing


def test_switched_off(shelf: Shelf) -> None:
    """Nothing of it is left, but for what was not its own."""
    put(shelf.open(), HALL)
    erase(shelf.folder)
    assert not shelf.folder.exists()
    erase(shelf.folder)
    put(shelf.open(), HALL)
    (shelf.folder / "notes.txt").write_text("mine")
    erase(shelf.folder)
    assert [path.name for path in shelf.folder.iterdir()] == ["notes.txt"]


def test_whose_the_files_are(small_model: Path) -> None:
    """Whatever makes other states of the same tokens; the size of a stream does with models of two ropes."""
    keys = {
        load(configured(model_path=str(small_model), **changes), lambda _level, _text: None).state_key
        for changes in (
            {},
            {"context": 512},
            {"slots": 2},
            {"kv_type": "q8_0"},
            {"flash_attention": "off"},
            {"flash_attention": "on"},
            {"batch_tokens": 32},
        )
    }
    assert len(keys) == 5
