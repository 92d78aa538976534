"""Tool calls on real vocabularies: the small model with our form, R1's shape after its thinking, a form with tags.

What a small model wants to say is its own affair; that what it says is text or a whole, valid call, is ours.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from r1model import ASSISTANT, OPEN, Story, byte_level, read_parts, write_model
from real_rig import RealRig, ask

from edged.core.tools import Tool
from edged.engine.calls import OURS
from edged.engine.messages import Ended, Piece, Refused
from edged.errors import Refusal

LAMP = Tool(
    "set_lamp",
    "Switch a lamp.",
    '{"type":"object","properties":{"lamp":{"enum":["hall","yard"]},"on":{"type":"boolean"}},'
    '"required":["lamp","on"],"additionalProperties":false}',
)
VALVE = Tool(
    "set_valve",
    "Open a valve by some percent.",
    '{"type":"object","properties":{"valve":{"type":"string","pattern":"^V-[0-9]{1,3}$"},'
    '"percent":{"type":"integer","minimum":0,"maximum":100}},"required":["valve"],"additionalProperties":false}',
)
TOOLS = {tool.name: tool for tool in (LAMP, VALVE)}
SCHEMA = (
    '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'
)


@pytest.fixture(scope="module")
def rig(small_model: Path) -> RealRig:
    """An engine of four slots."""
    return RealRig(small_model)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> RealRig:
    """R1's tokenizer and template, in which a thinking comes first and closes by itself."""
    path = tmp_path_factory.mktemp("thinker") / "model.gguf"
    return RealRig(write_model(path, story=Story(closes=True)), slots=2)


class Opening(Story):
    """A story whose thinking the model begins itself."""

    def successors(self, tokens: Sequence[str]) -> dict[int, int]:
        """Which token follows which."""
        return super().successors(tokens) | {ASSISTANT: OPEN, OPEN: list(tokens).index(byte_level("\n"))}


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> RealRig:
    """A thinker whose template leaves it to the model to begin, as Qwen3's does."""
    parts = read_parts()
    template = parts.template.replace("<think>\\n", "")
    assert template != parts.template
    path = tmp_path_factory.mktemp("opener") / "model.gguf"
    story = Opening(closes=True)
    return RealRig(
        write_model(path, story=story, parts=dataclasses.replace(parts, template=template)), slots=2
    )


def asked(rig: RealRig, **changes: Any) -> dict[int, Ended | Refused]:
    """Several seeds of one question, side by side."""
    for seed in range(1, 5):
        rig.submit(
            ask(seed, "Switch on the lamp in the hall.", seed=seed, **{"tools": (LAMP, VALVE)} | changes)
        )
    return rig.run()


def check_calls(ended: Ended) -> None:
    """Each call names a tool and has arguments that fit it."""
    assert ended.calls
    for call in ended.calls:
        jsonschema.validate(json.loads(call.arguments), json.loads(TOOLS[call.name].parameters))


def shown(rig: RealRig, number: int) -> str:
    """What was sent of an answer's text."""
    pieces = [one for one in rig.reports if isinstance(one, Piece) and one.number == number]
    return "".join(piece.text for piece in pieces if piece.kind == "text")


def test_required(rig: RealRig) -> None:
    """A call from the first token on, and nothing else."""
    for number, ended in asked(rig, tool_mode="required").items():
        assert isinstance(ended, Ended)
        assert (ended.outcome, ended.text, shown(rig, number)) == ("tool_calls", "", "")
        check_calls(ended)


def test_named_alone(rig: RealRig) -> None:
    """The one that was named, once."""
    for ended in asked(rig, tool_mode="required", tool_named="set_valve").values():
        assert isinstance(ended, Ended)
        assert [call.name for call in ended.calls] == ["set_valve"]
        check_calls(ended)


def test_one_at_a_time(rig: RealRig) -> None:
    """Without parallel calls there is one."""
    for ended in asked(rig, tool_mode="required", tools_parallel=False).values():
        assert isinstance(ended, Ended)
        assert len(ended.calls) == 1


@pytest.mark.parametrize("max_tokens", [4, 24, 64])
def test_auto(rig: RealRig, max_tokens: int) -> None:
    """Text, or calls, or an error for a call that was cut off; what is shown is the text."""
    for number, ending in asked(rig, max_tokens=max_tokens).items():
        if isinstance(ending, Refused):
            assert ending.code == "too_long"
            assert "tool call" in ending.message
        else:
            assert shown(rig, number) == ending.text
            assert OURS.trigger not in ending.text
            assert bool(ending.calls) == (ending.outcome == "tool_calls")


def test_none(rig: RealRig) -> None:
    """No call, though the tools are told."""
    for ended in asked(rig, tool_mode="none", max_tokens=24).values():
        assert isinstance(ended, Ended)
        assert not ended.calls
        assert OURS.trigger not in ended.text


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_text_in_many_bytes(rig: RealRig, mode: str) -> None:
    """Text is an answer wherever `max_tokens` ends it: Chinese has several tokens a character here."""
    question = "Translate to Chinese: good morning, my friend"
    for number in range(10, 16):
        rig.submit(ask(number, question, tools=(LAMP,), tool_mode=mode, max_tokens=number, temperature=0.0))
    ended = rig.run()
    assert [one.outcome for one in ended.values() if isinstance(one, Ended)] == ["length"] * 6


def test_with_a_schema(rig: RealRig) -> None:
    """Beside a schema an answer is a value of it, or a call."""
    for ended in asked(rig, schema=SCHEMA).values():
        assert isinstance(ended, Ended)
        if ended.calls:
            check_calls(ended)
        else:
            jsonschema.validate(json.loads(ended.text), json.loads(SCHEMA))


def test_bad_schema_of_a_tool(rig: RealRig) -> None:
    """A tool whose schema cannot be kept is refused before anything runs."""
    bad = Tool("x", "", '{"type":"object","properties":{"a":{"not":{"type":"string"}}}}')
    with pytest.raises(Refusal, match="the schema of tool x"):
        rig.submit(ask(1, "a", tools=(bad,)))


@pytest.mark.parametrize("text", ['{"ok": true} <tool_call>', "<tool_call>", "a <tool_call> b"])
def test_trigger_in_what_is_asked(rig: RealRig, text: str) -> None:
    """A device may write what it likes: only what the model writes is a call."""
    rig.submit(ask(1, text, tools=(LAMP,), max_tokens=8, temperature=0.0))
    [ending] = rig.run().values()
    assert isinstance(ending, Ended | Refused)


@pytest.mark.parametrize("mode", ["required", "auto"])
@pytest.mark.parametrize("whose", ["thinker", "opener"])
def test_call_after_the_thinking(request: pytest.FixtureRequest, whose: str, mode: str) -> None:
    """A model that thinks is held to the form of a call behind its thinking, not in it."""
    for ended in asked(request.getfixturevalue(whose), tool_mode=mode).values():
        assert isinstance(ended, Ended)
        assert ended.reasoning.strip() == "one two three four"
        if mode == "required":
            check_calls(ended)
            assert ended.text == ""
        else:
            assert ended.text == "The bearing is fine."


@pytest.mark.parametrize("whose", ["thinker", "opener"])
def test_schema_after_the_thinking(request: pytest.FixtureRequest, whose: str) -> None:
    """And to a schema likewise."""
    for ended in asked(request.getfixturevalue(whose), tools=(), schema=SCHEMA).values():
        assert isinstance(ended, Ended)
        assert ended.reasoning.strip() == "one two three four"
        jsonschema.validate(json.loads(ended.text), json.loads(SCHEMA))


def test_no_thinking_before_a_value(opener: RealRig) -> None:
    """Where none is wanted the model begins none."""
    for ended in asked(opener, tools=(), schema=SCHEMA, reasoning_budget=0).values():
        assert isinstance(ended, Ended)
        assert ended.reasoning == ""
        jsonschema.validate(json.loads(ended.text), json.loads(SCHEMA))


def test_tag_that_is_a_token(thinker: RealRig) -> None:
    """In R1's vocabulary the tag of a call is one token, which no text can be: the grammar names it by number."""
    parts = thinker.preparation._literal(OURS.opening)  # noqa: SLF001 - what the grammar is made of
    assert parts == [151657, '\n{"name": "']
    assert thinker.vocabulary.is_special(151657)


@pytest.mark.parametrize("tag", [("<tool_call>",), ("<", "tool", "_call", ">")], ids=["token", "spelled"])
def test_both_ways_to_write_the_tag(tmp_path: Path, tag: tuple[str, ...]) -> None:
    """A template that lists no tools has them told as text, where the tag is no token: a model may write it so."""
    path = write_model(tmp_path / "model.gguf", story=Story(closes=True, answer=tag))
    for ended in asked(RealRig(path, slots=2), temperature=0.0).values():
        assert isinstance(ended, Ended)
        assert (ended.outcome, ended.text) == ("tool_calls", "")
        check_calls(ended)


def test_a_value_or_a_call_where_the_tag_is_a_token(thinker: RealRig) -> None:
    """Beside a schema, too."""
    for ended in asked(thinker, schema=SCHEMA).values():
        assert isinstance(ended, Ended)
        if ended.calls:
            check_calls(ended)
        else:
            jsonschema.validate(json.loads(ended.text), json.loads(SCHEMA))
