"""From bytes to text: however a stream is cut into tokens, the same comes out, in whole characters."""

from __future__ import annotations

import codecs
import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.core.answer_text import AnswerText, Kind
from edged.core.thinking import FAMILIES, THINK, Tags

Pieces = list[tuple[Kind, str]]

FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<think",
        "</thi",
        "<",
        "/",
        ">",
        "think",
        "\n",
        " ",
        "a",
        "ab",
        "é",
        "🙂",
        "STOP",
        "\n\n",
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
STREAMS = (
    TEXTS.map(str.encode)
    | st.binary(max_size=12)
    | st.tuples(TEXTS, st.binary(max_size=3)).map(lambda both: both[0].encode() + both[1])
)
STOPS = st.lists(
    st.sampled_from(["STOP", "a", "ab", "b", "\n\n", "</think>", "é", "<think>", "aba"]), max_size=3
)
MODELS = st.sampled_from(
    [
        {"tags": None, "thinking": False},
        {"tags": THINK, "thinking": False},
        {"tags": THINK, "thinking": True},
    ]
)
"""Models: one that does not think, one that may open its thinking, one whose prompt opened it."""


def run(
    parts: list[bytes], stop: tuple[str, ...], *, tags: Tags | None, thinking: bool
) -> tuple[AnswerText, Pieces]:
    """Feed tokens one by one; returns the splitter and all pieces."""
    text = AnswerText(stop, tags=tags, thinking=thinking)
    pieces: Pieces = []
    for part in parts:
        pieces += text.feed(part)
    return text, pieces + text.finish()


def answer(
    *parts: str, stop: tuple[str, ...] = (), tags: Tags | None = THINK, thinking: bool = False
) -> tuple[str, str]:
    """Reasoning and text of a stream."""
    text, _ = run([part.encode() for part in parts], stop, tags=tags, thinking=thinking)
    return text.reasoning, text.text


@given(STREAMS, STOPS, MODELS, st.lists(st.integers(0, 60), max_size=8))
@example(b"xaby", ["ab", "xaby"], {"tags": None, "thinking": False}, [3])
def test_splits_do_not_matter(data: bytes, stop: list[str], model: dict[str, Any], cuts: list[int]) -> None:
    """Any cut of the bytes into tokens gives the same text, reasoning and end."""
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[begin:end] for begin, end in itertools.pairwise(bounds)]
    stops = tuple(stop)
    cut, pieces = run(parts, stops, **model)
    whole, _ = run([data], stops, **model)
    assert (cut.text, cut.reasoning, cut.stopped) == (whole.text, whole.reasoning, whole.stopped)
    for kind, joined in (("text", cut.text), ("reasoning", cut.reasoning)):
        assert "".join(text for named, text in pieces if named == kind) == joined
    for word in stops:
        assert word not in cut.text
    for _, text in pieces:
        assert text
        text.encode()


@given(STREAMS, MODELS)
def test_nothing_is_lost(data: bytes, model: dict[str, Any]) -> None:
    """Without stop strings every character comes out, but the tags and the space behind them."""
    text, _ = run([bytes([byte]) for byte in data], (), tags=None, thinking=False)
    seen = codecs.getincrementaldecoder("utf-8")("replace").decode(
        data
    )  # whole characters: no cut one at the end
    assert text.text == seen
    text, _ = run([data], (), **model)
    assert len(seen) - len(text.text) - len(text.reasoning) <= len("<think></think>") + sum(
        map(str.isspace, seen)
    )


@given(st.text(max_size=30))
def test_whole_characters(words: str) -> None:
    """A character is never cut, and appears with its last byte."""
    text = AnswerText()
    shown = ""
    for byte in words.encode():
        shown += "".join(piece for _, piece in text.feed(bytes([byte])))
        assert words.startswith(shown)
    assert shown == words


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("hello",), ("", "hello")),
        (("<think>", "so", "</think>", "\n\n", "yes"), ("so", "yes")),
        (("<thi", "nk>so</th", "ink>yes"), ("so", "yes")),
        ((" \n<think>so</think> yes",), ("so", "yes")),
        (("<think>so</think>yes </think> no",), ("so", "yes </think> no")),
        (("a<think>b</think>c",), ("", "a<think>b</think>c")),
        (("<think></think>yes",), ("", "yes")),
        (("<think>so",), ("so", "")),
        (("<think>so</thi",), ("so</thi", "")),
        (("<think>so</think>  \n",), ("so", "")),
        (("<thi",), ("", "<thi")),
        (("  ",), ("", "")),
        (("\n", "\n", "yes"), ("", "yes")),
        (("<think>a<think>b</think>c",), ("a<think>b", "c")),
        ((), ("", "")),
    ],
)
def test_a_model_that_opens_its_thinking(parts: tuple[str, ...], expected: tuple[str, str]) -> None:
    """A tag counts as the very first word; what is cut off by the end comes out as what it was."""
    assert answer(*parts) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("so</think>\n\nyes",), ("so", "yes")),
        (("so", "</", "think", ">", "\n", "\n", " yes", " "), ("so", "yes ")),
        (("so it never ends",), ("so it never ends", "")),
        (("so <", "/thi"), ("so </thi", "")),
        (("</think>yes",), ("", "yes")),
        (("<think>so</think>yes",), ("<think>so", "yes")),
    ],
)
def test_a_prompt_that_opened_the_thinking(parts: tuple[str, ...], expected: tuple[str, str]) -> None:
    """The stream starts inside the reasoning; without a closing tag all of it is reasoning."""
    assert answer(*parts, thinking=True) == expected


@pytest.mark.parametrize("tags", FAMILIES, ids=lambda tags: tags.open)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_each_family_has_tags_of_its_own(tags: Tags, size: int) -> None:
    """However the tokens cut them; what a family writes behind its opening tag is no thinking."""
    said = f"{tags.open}{tags.head}so{tags.close}yes {tags.close}"
    parts = [said[at : at + size] for at in range(0, len(said), size)]
    assert answer(*parts, tags=tags) == ("so", f"yes {tags.close}")
    assert answer(tags.open, tags.close, "yes", tags=tags) == ("", "yes")
    assert answer(f"so{tags.closing}yes", tags=tags, thinking=True) == (
        "so" + tags.closing.partition(tags.close)[0],
        "yes",
    )


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("<|channel>", "thought\n", "so", "\n<channel|>", "yes"), ("so\n", "yes")),
        (("<|channel>thou", "ght\nso"), ("so", "")),
        (("<|channel>thou",), ("thou", "")),
        (("<|channel>", "though", " I think", "<channel|>yes"), ("though I think", "yes")),
        (("<|channel>\n<channel|>yes",), ("\n", "yes")),
    ],
)
def test_the_name_of_a_channel(parts: tuple[str, ...], expected: tuple[str, str]) -> None:
    """Gemma 4 names the channel behind its tag; what only begins like the name is thinking."""
    gemma = next(tags for tags in FAMILIES if tags.head)
    assert answer(*parts, tags=gemma) == expected


def test_which_tokens_are_tags_by_where_they_stand() -> None:
    """A control token has no text to show, but where it begins or ends a thinking."""
    text = AnswerText(tags=THINK)
    assert not text.would_close(b"</think>")
    text.feed(b"\n")
    assert text.would_open(b"<think>\n")
    text.feed(b"<think>")
    assert not text.would_open(b"<think>")
    assert text.would_close(b"</think>")
    text.feed(b"</think>")
    assert not text.would_close(b"</think>")
    text.feed(b"yes")
    assert not text.would_open(b"<think>")


def test_a_model_that_does_not_think() -> None:
    """For other models the tags are text like any other."""
    assert answer("<think>so</think> yes", tags=None) == ("", "<think>so</think> yes")


@pytest.mark.parametrize(
    ("parts", "stop", "expected"),
    [
        (("one STOP two",), ("STOP",), "one "),
        (("one ST", "OP two"), ("STOP",), "one "),
        (("one ", "S", "T", "O", "P"), ("STOP",), "one "),
        (("one ST", "ART"), ("STOP",), "one START"),
        (("one ST",), ("STOP",), "one ST"),
        (("STOP",), ("STOP",), ""),
        (("xaby",), ("ab", "xaby"), "x"),
        (("xab", "y"), ("ab", "xaby"), "x"),
        (("aab",), ("ab", "aab"), ""),
        (("a🙂", "b"), ("🙂",), "a"),
    ],
)
def test_stop_strings(parts: tuple[str, ...], stop: tuple[str, ...], expected: str) -> None:
    """A stop string ends the text in front of it, as soon as it is complete, and never shows."""
    assert answer(*parts, stop=stop, tags=None) == ("", expected)


def test_stop_strings_in_the_thinking() -> None:
    """Stop strings are looked for in the answer only, also right behind the thinking."""
    assert answer("a STOP b</think>\n\nc STOP d", stop=("STOP",), thinking=True) == ("a STOP b", "c ")
    assert answer("a</think>\n\nc", stop=("\n\n",), thinking=True) == ("a", "c")


def test_held_back_until_decided() -> None:
    """What may become a stop string is not shown, and shown as soon as it cannot any more."""
    text = AnswerText(("STOP",))
    assert text.feed(b"one S") == [("text", "one ")]
    assert text.feed(b"T") == []
    assert text.feed(b"X") == [("text", "STX")]
    assert text.feed(b"ST") == []
    assert text.finish() == [("text", "ST")]
    assert not text.stopped


def test_a_model_that_may_think_and_does_not_is_heard_at_once() -> None:
    """With the first word that cannot become its tag."""
    text = AnswerText(tags=THINK)
    assert text.feed(b"<") == []
    assert text.feed(b"b>") == [("text", "<b>")]


def test_after_the_stop() -> None:
    """Nothing follows a stop string."""
    text = AnswerText(("x",))
    text.feed(b"axb")
    assert text.stopped
    assert text.feed(b"more") == text.finish() == []
    assert text.text == "a"


def test_thinking_is_told() -> None:
    """The state of the thinking follows the tags, for the budget to go by."""
    text = AnswerText(tags=THINK)
    text.feed(b"<thi")
    assert not text.thinking
    text.feed(b"nk>")
    assert text.thinking
    text.feed(b"a</think")
    assert text.thinking
    text.feed(b">")
    assert not text.thinking


def test_broken_characters() -> None:
    """Bytes that are no UTF-8 become replacement characters; one that the end cuts off is dropped."""
    text, pieces = run([b"a\xff", b"\xf0\x9f", b"\x99"], (), tags=None, thinking=False)
    assert text.text == "a\ufffd"
    assert "".join(piece for _, piece in pieces) == text.text


@pytest.mark.parametrize(
    ("text", "stop", "left", "call"),
    [
        ('{"name": "f"', " ", "", '{"name": "f"'),
        ('a {"name": "f"', ":", "a ", '{"name": "f"'),
        ('a: {"name": "f"', ":", "a", ""),
        ('{"name": "f"', "{", "", '{"name": "f"'),
        ('{"name" is', "{", "", ""),
        ('{"name" is', " ", '{"name"', ""),
        ('{"na', "n", '{"', ""),
    ],
)
def test_a_stop_string_within_a_call_s_opening(text: str, stop: str, left: str, call: str) -> None:
    """It ends what turns out to be text, and no call: Llama's calls begin with half a JSON object."""
    for size in range(1, len(text) + 1):
        splitter = AnswerText((stop,), trigger='{"name": "')
        for at in range(0, len(text), size):
            splitter.feed(text[at : at + size].encode())
        splitter.finish()
        assert (splitter.text, splitter.call, splitter.stopped) == (left, call, not call)
