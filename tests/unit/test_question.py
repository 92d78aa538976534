"""Reading questions: every rule of the contract as a table, and anything at all as a property.

Whatever a device sends becomes a question that can be stored and sent on, or one sentence back.
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edged.core.parsing import Bounds, Envelope, Misread, parse
from edged.core.question import Message, Priority, Properties, Question
from edged.core.tools import Offer
from edged.core.topics import Topics, is_job_id
from edged.errors import CODES

TOPICS = Topics("edged", "n1", ("plant/answers",))
BOUNDS = Bounds()
ANSWER = "edged/v1/client/c1/answer/"


def read(payload: bytes | dict[str, Any], bounds: Bounds = BOUNDS, **properties: Any) -> Question:
    """The question in a payload from client c1."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return parse(data, Envelope("c1", "made-1", Properties(**properties)), TOPICS, bounds)


def misread(payload: bytes | dict[str, Any], bounds: Bounds = BOUNDS, **properties: Any) -> Misread:
    """The refusal of a payload."""
    with pytest.raises(Misread) as caught:
        read(payload, bounds, **properties)
    return caught.value


def check_misread(error: Misread) -> None:
    """A refusal is one sentence of bounded length with a code, and knows where to go."""
    assert error.refusal.code in CODES
    assert "\n" not in error.refusal.message
    assert 0 < len(error.refusal.message) < 1500
    error.refusal.message.encode()
    assert is_job_id(error.address.id)
    assert TOPICS.may_reply_to("c1", error.address.reply_to)


def check(payload: bytes, **properties: Any) -> None:
    """A payload is a sound question or a sound refusal, and nothing else."""
    try:
        question = read(payload, **properties)
    except Misread as error:
        check_misread(error)
        return
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(question), type=Question) == question
    assert is_job_id(question.id)
    assert TOPICS.may_reply_to("c1", question.reply_to)
    assert question.messages
    assert question.messages[-1].role in {"user", "tool"}
    for message in question.messages:
        assert message.content is not None or message.tool_calls
        assert "\0" not in (message.content or "")
    assert question.deadline_ms is None or 0 <= question.deadline_ms <= 86_400_000
    assert question.temperature is None or 0 <= question.temperature <= 2
    assert question.top_p is None or 0 < question.top_p <= 1
    assert len(question.digest()) == 32


# anything -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool", "robot"]) | JSON,
        "content": st.text(max_size=20) | JSON,
        "name": st.text(max_size=4) | JSON,
        "tool_calls": JSON,
        "odd": JSON,
    },
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text("ab:-\n/", max_size=4),
    "prompt": st.text(max_size=20),
    "messages": st.lists(TURN, max_size=4),
    "session": st.text(max_size=3),
    "stream": st.booleans(),
    "max_tokens": st.integers(),
    "deadline_ms": st.integers(),
    "priority": st.sampled_from(["interactive", "normal", "background", "urgent"]),
    "temperature": st.floats(-1, 3),
    "top_p": st.floats(-1, 2),
    "seed": st.integers(),
    "stop": st.text(max_size=70) | st.lists(st.text(max_size=70), max_size=10),
    "reasoning": st.fixed_dictionaries(
        {},
        optional={"mode": st.sampled_from(["hide", "separate", "inline", "loud"]), "budget": st.integers()},
    ),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}]),
    "tools": st.lists(JSON, max_size=2),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function"}]),
    "cache": st.sampled_from(["use", "bypass", "refresh"]),
    "overflow": st.sampled_from(["error", "trim_history", "cut"]),
    "reply_to": st.sampled_from(["edged/v1/client/c1/x", "edged/v1/client/c2/x", "a/#", ""]),
}
QUESTION = st.fixed_dictionaries({}, optional={key: some | JSON for key, some in LIKELY.items()})
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "response_topic": st.sampled_from(["edged/v1/client/c1/r", "edged/v1/client/c2/r", "", "#"])
        | st.text(),
        "correlation": st.binary(max_size=200),
        "expiry_s": st.integers(0, 0xFFFF_FFFF),
        "content_type": st.sampled_from(["application/json", "text/plain", "Application/JSON; charset=utf-8"])
        | st.text(max_size=20),
    },
)


@given(st.binary(max_size=300), PROPERTIES)
@example(b"", {})
@example(b"\xff", {"content_type": "application/json"})
@example(b"{", {})
@example(b'{"prompt":"\\ud800"}', {})
@example(b'{"prompt":"\\udc00\\ud800abc"}', {})
@example(b'{"\\ud800":1,"prompt":"a"}', {})
@example(b'{"prompt":"a","reply_to":"edged/v1/client/c1/\\ud800\\ud800"}', {})
def test_any_bytes(payload: bytes, properties: dict[str, Any]) -> None:
    """Any bytes are a question or a refusal."""
    check(payload, **properties)


@given(JSON, PROPERTIES)
def test_any_json(value: object, properties: dict[str, Any]) -> None:
    """Any JSON is a question or a refusal."""
    check(json.dumps(value).encode(), **properties)


@settings(max_examples=400)
@given(QUESTION, PROPERTIES)
def test_any_question(fields: dict[str, Any], properties: dict[str, Any]) -> None:
    """Objects with the right keys and any values are questions or refusals."""
    check(json.dumps(fields).encode(), **properties)


@given(QUESTION, st.integers(0, 400), st.binary(max_size=3))
def test_damaged_questions(fields: dict[str, Any], at: int, junk: bytes) -> None:
    """A question with bytes overwritten is a question or a refusal."""
    data = json.dumps(fields).encode()
    check(data[:at] + junk + data[at + len(junk) :])


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 60_000,
        b'{"a":' * 13_000,
        b'{"prompt":"a","tool_choice":' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
        b'{"prompt":"a","tool_choice":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"prompt":"a","tools":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"prompt":"a","seed":' + b"9" * 65_000 + b"}",
        b'{"prompt":"a","max_tokens":-' + b"9" * 4000 + b"}",
        b'{"prompt":"a","temperature":' + b"1" * 65_000 + b".5}",
        b'{"prompt":"a","temperature":0.' + b"1" * 65_000 + b"}",
        b'{"prompt":"a","temperature":1e999}',
        b'{"prompt":"a","temperature":1e-999999999}',
        b'{"prompt":"a","response_format":{"type":"json_schema","json_schema":{"schema":{"anyOf":[{}],"$ref":"#/anyOf/'
        + b"9" * 5000
        + b'"}}}}',
        b'{"prompt":"a","temperature":NaN}',
        b'{"prompt":"a","temperature":-Infinity}',
        b"{" + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}",
        b"{" + b'"prompt":"a",' * 4500 + b'"prompt":"b"}',
        b'{"stop":' + json.dumps(["a" * 60] * 900).encode() + b',"prompt":"a"}',
        b'{"messages":[' + b",".join([b'{"role":"user","content":"a"}'] * 2000) + b"]}",
        b'{"prompt":"' + b"\\u0041" * 10_000 + b'"}',
        b"a" * 65_536,
        b" " * 65_536,
    ],
    ids=lambda payload: payload[:24].decode(),
)
def test_heavy_payloads(payload: bytes) -> None:
    """Deep, long and huge payloads are judged at once (the best of three: a busy host takes time)."""
    assert len(payload) <= BOUNDS.payload_bytes
    spent = []
    for _ in range(3):
        started = time.thread_time()
        check(payload)
        spent.append(time.thread_time() - started)
    assert min(spent) < 0.5


# the payload ----------------------------------------------------------------------------------------------


def test_plain_text() -> None:
    """Text is the prompt; all the rest is default, and the thinking is hidden."""
    question = read("Is 85 °C hot?".encode())
    assert question == Question(
        client="c1",
        id="made-1",
        made_id=True,
        plain=True,
        messages=(Message("user", "Is 85 °C hot?"),),
        reply_to=ANSWER + "made-1",
        reasoning_mode="hide",
    )


def test_smallest_object() -> None:
    """Only the prompt is needed; the thinking is sent apart."""
    question = read({"prompt": "hi"})
    assert question.messages == (Message("user", "hi"),)
    assert not question.plain
    assert question.stream
    assert question.priority == "normal"
    assert question.reasoning_mode == "separate"
    assert (question.cache, question.overflow) == ("auto", "error")
    assert question.max_tokens is question.deadline_ms is question.temperature is question.seed is None


def test_whole_numbers_with_a_point() -> None:
    """120.0 is an integer to the specification's schema, and 1000 * timeout_s in many a device: it was refused."""
    whole = {"max_tokens": 256, "deadline_ms": 60_000, "seed": 1, "reasoning": {"budget": 192}}
    floats = {"max_tokens": 256.0, "deadline_ms": 6e4, "seed": 1.0, "reasoning": {"budget": 192.0}}
    first, second = (read({"id": "q", "prompt": "a", **fields}) for fields in (whole, floats))
    assert second == first
    assert second.digest() == first.digest()


def test_all_fields() -> None:
    """Every field of the contract arrives as it was sent."""
    question = read(
        {
            "id": "c1-000042",
            "session": "line-3",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c", "name": "ann"},
            ],
            "stream": False,
            "max_tokens": 256,
            "deadline_ms": 60_000,
            "priority": "interactive",
            "temperature": 0,
            "top_p": 1,
            "seed": 1,
            "stop": ["\n\n", "END"],
            "reasoning": {"mode": "inline", "budget": 192},
            "response_format": {"type": "json_object"},
            "tools": ["clock"],
            "cache": "bypass",
            "overflow": "trim_history",
            "model": "large",
            "reply_to": "edged/v1/client/c1/answer/000042",
        },
        Bounds(models=("large",)),
    )
    assert question.id == "c1-000042"
    assert not question.made_id
    assert [message.role for message in question.messages] == ["system", "user", "assistant", "user"]
    assert not question.stream
    assert (question.max_tokens, question.deadline_ms, question.seed) == (256, 60_000, 1)
    assert (question.temperature, question.top_p) == (0, 1)
    assert question.stop == ("\n\n", "END")
    assert (question.reasoning_mode, question.reasoning_budget) == ("inline", 192)
    assert (question.priority, question.cache, question.overflow) == ("interactive", "bypass", "trim_history")
    assert (question.schema, question.tools) == ('{"type":"object"}', Offer(local=("clock",)))
    assert (question.session, question.model) == ("line-3", "large")
    assert question.reply_to == "edged/v1/client/c1/answer/000042"


@pytest.mark.parametrize("fields", [{"stop": "x"}, {"response_format": {"type": "text"}}, {"tools": []}])
def test_harmless_fields(fields: dict[str, Any]) -> None:
    """One stop string needs no list; the defaults of unsupported fields are no reason to refuse."""
    assert read({"prompt": "a"} | fields).stop in {("x",), ()}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "clock"}}])
def test_tool_choice_is_not_passed_over(choice: object) -> None:
    """A device that insists on a tool and offers none hears of that, instead of getting text."""
    assert misread({"prompt": "a", "tool_choice": choice}).refusal.code == "bad_request"


@pytest.mark.parametrize(
    ("payload", "content_type", "plain"),
    [
        (b'{"prompt":"a"}', None, False),
        (b' \n{"prompt":"a"}', None, False),
        (b'\xef\xbb\xbf{"prompt":"a"}', None, False),
        (b'{"prompt":"a"}', "text/plain; charset=utf-8", True),
        (b'{"prompt":"a"}', " Text/Plain ; charset=utf-8", True),
        (b'{"prompt":"a"}', "Application/JSON; charset=utf-8", False),
        (b"null", None, True),
        (b"[1]", None, True),
        (b'"a"', None, True),
        (b"\xef\xbb\xbfhello", None, True),
    ],
)
def test_json_or_text(payload: bytes, content_type: str | None, plain: bool) -> None:  # noqa: FBT001 - a table
    """What opens with a brace is JSON and all else is text, unless the Content Type knows better."""
    assert read(payload, content_type=content_type).plain is plain


def test_byte_order_mark() -> None:
    """A byte order mark is no part of the prompt."""
    assert read(b"\xef\xbb\xbfhello").messages == (Message("user", "hello"),)


@pytest.mark.parametrize("payload", [b"hello", b"[1]", b"null", b""])
@pytest.mark.parametrize("content_type", ["application/json", " Application/JSON ; charset=utf-8"])
def test_content_type_json(payload: bytes, content_type: str) -> None:
    """A payload that calls itself JSON and is no object is refused, not answered as text."""
    assert misread(payload, content_type=content_type).refusal.code == "bad_request"


def test_properties_that_cannot_be_read() -> None:
    """A question that may mean something else than it says is refused, under its own id; the fault is cut short."""
    error = misread({"id": "q1", "prompt": "a"}, fault="x" * 100)
    assert (error.refusal.code, error.address.id) == ("bad_request", "q1")
    assert f"cannot be read: {'x' * 80};" in error.refusal.message


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "payload is empty"),
        (b" \r\n\t ", "payload is empty"),
        ("\u00a0\u2003".encode(), "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"ab\xffc", "byte 2 is 0xff"),
        (b"ab\xc3", "byte 2 is 0xc3"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b"ab\0c", "NUL byte at character 2; send the text by its own length"),
        (b'{"prompt":"a\0"}', "NUL"),
        (b'{"prompt":"a\\u0000b"}', "prompt holds a NUL at character 1"),
        (b'{"messages":[{"role":"user","content":"\\u0000"}]}', "messages[0] holds a NUL at character 0"),
        (b'{"prompt":"\\ud800"}', "no JSON"),
        (b"{", "no JSON object"),
        (b'{"prompt":"a"}}', "no JSON object"),
        (b'{"prompt":"a",}', "no JSON object"),
        (b"{'prompt':'a'}", "no JSON object"),
        (b'{"a":' * 12000, "no JSON object: it is nested too deeply"),
    ],
)
def test_unreadable(payload: bytes, words: str) -> None:
    """What cannot be read is a bad request, and the sentence says where it goes wrong."""
    refusal = misread(payload).refusal
    assert refusal.code == "bad_request"
    assert words in refusal.message


def test_too_large() -> None:
    """A payload above the limit is refused by its size alone, with both numbers."""
    refusal = misread(b"\xff" * 101, Bounds(payload_bytes=100)).refusal
    assert refusal.code == "too_large"
    assert refusal.details == {"bytes": 101, "limit": 100}
    assert read(b"a" * 100, Bounds(payload_bytes=100)).plain


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "exactly one of prompt and messages"),
        ({"prompt": None}, "exactly one"),
        ({"prompt": "a", "messages": []}, "exactly one"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": 5}, "$.prompt"),
        ({"messages": []}, "1 to 64 turns, got 0"),
        ({"messages": [{"role": "user", "content": "a"}] * 65}, "1 to 64 turns, got 65"),
        ({"messages": {"role": "user"}}, "$.messages"),
        ({"messages": [{"content": "a"}]}, "role"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]: content is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content must be one text",
        ),
        ({"messages": [{"role": "user", "content": "a", "x": 1}]}, "`x`"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "last message must be the user's"),
        ({"messages": [{"role": "system", "content": "a"}]}, "last message must be the user's"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
            "messages[1]: a system message can only be the first",
        ),
        ({"promt": "a"}, "unknown field 'promt'; known are cache, deadline_ms, id"),
        ({"prompt": "a", "ö\n": 1}, "unknown field '\\xf6\\n'"),
        ({"prompt": "a", "session": ""}, "session must be 1 to 128"),
        ({"prompt": "a", "session": "a b"}, "session must be"),
        ({"prompt": "a", "session": "x" * 129}, "session must be"),
        ({"prompt": "a", "id": ""}, "id must be"),
        ({"prompt": "a", "id": "a b"}, "id must be"),
        ({"prompt": "a", "id": "x" * 129}, "id must be"),
        ({"prompt": "a", "id": 5}, "id must be"),
        ({"prompt": "a", "stream": 1}, "$.stream"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens must be 1 to 1000000, got 0"),
        ({"prompt": "a", "max_tokens": 1_000_001}, "max_tokens must be"),
        ({"prompt": "a", "max_tokens": True}, "$.max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "$.max_tokens"),
        ({"prompt": "a", "max_tokens": 10**30}, "got 100000000000000000..."),
        ({"prompt": "a", "max_tokens": 1e300}, "got 100000000000000005..."),
        ({"prompt": "a", "deadline_ms": 0}, "deadline_ms must be 1 to 86400000"),
        ({"prompt": "a", "deadline_ms": 86_400_001}, "deadline_ms must be"),
        ({"prompt": "a", "temperature": -0.1}, "temperature must be 0 to 2"),
        ({"prompt": "a", "temperature": 2.1}, "temperature must be"),
        ({"prompt": "a", "temperature": "0.5"}, "$.temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p must be above 0"),
        ({"prompt": "a", "top_p": 1.1}, "top_p must be"),
        ({"prompt": "a", "seed": -1}, "seed must be"),
        ({"prompt": "a", "seed": 2**32 - 1}, "seed must be"),
        ({"prompt": "a", "stop": ""}, "stop string must have 1 to 64"),
        ({"prompt": "a", "stop": ["a", "x" * 65]}, "stop string must have 1 to 64"),
        ({"prompt": "a", "stop": ["a"] * 9}, "stop may hold 8 strings, got 9"),
        ({"prompt": "a", "stop": [1]}, "$.stop"),
        ({"prompt": "a", "reasoning": {"budget": -1}}, "reasoning.budget must be 0 to"),
        ({"prompt": "a", "reasoning": {"budget": 1_000_001}}, "reasoning.budget must be"),
        ({"prompt": "a", "reasoning": {"mode": "loud"}}, "$.reasoning.mode"),
        ({"prompt": "a", "reasoning": {"effort": 1}}, "`effort`"),
        ({"prompt": "a", "priority": "urgent"}, "$.priority"),
        ({"prompt": "a", "cache": "no"}, "$.cache"),
        ({"prompt": "a", "overflow": "cut"}, "$.overflow"),
        ({"prompt": "a", "reply_to": 5}, "$.reply_to"),
    ],
)
def test_bad_requests(fields: dict[str, Any], words: str) -> None:
    """Each rule that is broken is named, with the field and what it takes."""
    error = misread(fields)
    assert error.refusal.code == "bad_request"
    assert words in error.refusal.message


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("priority", "urgent", "interactive, normal, background"),
        ("cache", "no", "use, bypass"),
        ("overflow", "cut", "error, trim_history"),
        ("reasoning", {"mode": "loud"}, "hide, separate, inline"),
        ("messages", [{"role": "robot", "content": "a"}], "system, user, assistant, tool"),
    ],
)
def test_words_that_are_accepted(field: str, value: object, accepted: str) -> None:
    """A word that is not accepted is answered with those that are."""
    asked = {field: value} if field == "messages" else {"prompt": "a", field: value}
    assert misread(asked).refusal.message.endswith(f"; use one of {accepted}")


@pytest.mark.parametrize(
    "fields",
    [
        {"session": "a"},
        {"session": "line:3." + "x" * 121},
        {"max_tokens": 1},
        {"max_tokens": 1_000_000},
        {"deadline_ms": 1},
        {"deadline_ms": 86_400_000},
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1e-9},
        {"top_p": 1},
        {"seed": 0},
        {"seed": 2**32 - 2},
        {"reasoning": {"budget": 0}},
        {"reasoning": {"budget": 1_000_000}},
        {"stop": "x" * 64},
        {"stop": ["x"] * 8},
        {"prompt": None, "messages": [{"role": "user", "content": "a"}] * 64},
    ],
)
def test_edges_of_ranges(fields: dict[str, Any]) -> None:
    """The ends of each range belong to it."""
    read({"prompt": "a"} | fields)


# id, reply topic, deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "correlation", "expected", "made"),
    [
        (None, None, "made-1", True),
        ("q7", None, "q7", False),
        (None, b"k-1", "k-1", False),
        ("q7", b"k-1", "q7", False),
    ],
)
def test_id(field: str | None, correlation: bytes | None, expected: str, made: bool) -> None:  # noqa: FBT001 - a table
    """The payload names the question, else the Correlation Data, else the node."""
    question = read({"prompt": "a", "id": field}, correlation=correlation)
    assert (question.id, question.made_id) == (expected, made)
    assert question.reply_to == ANSWER + expected
    assert question.correlation == correlation


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_correlation_names(one: bytes, other: bytes) -> None:
    """Any Correlation Data makes a legal id, the same for the same bytes and another one for others."""
    first, second = read(b"a", correlation=one), read(b"b", correlation=other)
    assert is_job_id(first.id)
    assert first.correlation == one
    assert (first.id == second.id) is (one == other)


@pytest.mark.parametrize(
    ("reply_to", "response_topic", "expected"),
    [
        (None, None, ANSWER + "q1"),
        ("edged/v1/client/c1/mine", None, "edged/v1/client/c1/mine"),
        ("plant/answers/7", None, "plant/answers/7"),
        (None, "edged/v1/client/c1/five", "edged/v1/client/c1/five"),
        ("edged/v1/client/c1/mine", "edged/v1/client/c1/five", "edged/v1/client/c1/mine"),
    ],
)
def test_reply_topic(reply_to: str | None, response_topic: str | None, expected: str) -> None:
    """The payload says where the replies go, else the Response Topic, else the contract."""
    assert (
        read({"id": "q1", "prompt": "a", "reply_to": reply_to}, response_topic=response_topic).reply_to
        == expected
    )


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/client/c2/answer/1",
        "edged/v1/node/n1/ask/c1",
        "edged/v1/client/c1",
        "edged/v1/client/c1/#",
        "edged/v1/client/+/x",
        "edged/v1/client/c1/\u0000",
        "edged/v1/client/c1/\u0001",
        "homeassistant/device/x/config",
        "plant/answers",
        "",
    ],
)
def test_foreign_reply_topics(topic: str) -> None:
    """A foreign topic is refused, and the refusal goes to the device's own branch under the question's own id."""
    for error in (
        misread({"id": "q1", "prompt": "a", "reply_to": topic}),
        misread({"id": "q1", "prompt": "a"}, response_topic=topic),
    ):
        assert error.refusal.code == "bad_request"
        assert "must lie under edged/v1/client/c1/" in error.refusal.message
        assert error.refusal.message.endswith("no + or #") == any(c in topic for c in "+#")
        assert (error.address.id, error.address.reply_to) == ("q1", ANSWER + "q1")


@pytest.mark.parametrize(
    "payload", [b"\xff", b"", b'{"prompt":', b'{"prompt":5}', b'{"prompt":"a","max_tokens":0}', b"a" * 70_000]
)
def test_refusals_reach_mqtt5_devices(payload: bytes) -> None:
    """A refusal carries correlation, the id made of it, and the Response Topic, whatever the payload was."""
    address = misread(payload, correlation=b"k-1", response_topic="edged/v1/client/c1/r").address
    assert (address.id, address.reply_to, address.correlation) == ("k-1", "edged/v1/client/c1/r", b"k-1")


@pytest.mark.parametrize("fields", [{"prompt": 5}, {"prompt": "a", "seed": -1}, {"prompt": "a", "x": 1}, {}])
def test_refusals_reach_mqtt3_devices(fields: dict[str, Any]) -> None:
    """A refusal carries id and reply topic of the payload where these could be read."""
    address = misread({"id": "q1", "reply_to": "edged/v1/client/c1/mine"} | fields).address
    assert (address.id, address.reply_to) == ("q1", "edged/v1/client/c1/mine")
    assert misread({"id": "q1"} | fields).address.reply_to == ANSWER + "q1"


@pytest.mark.parametrize(
    ("deadline_ms", "expiry_s", "expected"),
    [
        (None, None, None),
        (5000, None, 5000),
        (None, 7, 7000),
        (5000, 7, 5000),
        (9000, 7, 7000),
        (None, 0, 0),
        (None, 0xFFFF_FFFF, 86_400_000),
    ],
)
def test_deadline(deadline_ms: int | None, expiry_s: int | None, expected: int | None) -> None:
    """The earlier of the payload's deadline and the Message Expiry counts, within the node's bound."""
    assert read({"prompt": "a", "deadline_ms": deadline_ms}, expiry_s=expiry_s).deadline_ms == expected


# digest ---------------------------------------------------------------------------------------------------


def test_digest_knows_a_second_copy() -> None:
    """A copy that another reply topic, correlation or a shorter expiry came with is the same question."""
    first = read({"id": "q1", "prompt": "a"}, expiry_s=60, correlation=b"1")
    second = read(
        {"id": "q1", "prompt": "a", "reply_to": "edged/v1/client/c1/now"}, expiry_s=41, correlation=b"2"
    )
    assert first.digest() == second.digest()


class NextQuestion(Question, frozen=True):
    """The question of a version to come: a field more, and another default."""

    priority: Priority = "background"
    grammar: str | None = None


class NextMessage(Message, frozen=True):
    """Its message, with a field more."""

    image: str | None = None


def test_the_release_before_reads_it() -> None:
    """On the way back it answers what stands in the journal, unless that names what it does not know."""
    now = read({"id": "j", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5})
    named = {name: value for name, value in msgspec.structs.asdict(now).items() if name != "priority"}
    named["messages"] = (NextMessage("user", "x"),)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(NextQuestion(**named)), type=Question) == now
    for other in (NextQuestion(**named, grammar="g"), NextMessage("user", "x", image="y")):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.msgpack.decode(
                msgspec.msgpack.encode(other), type=Question if isinstance(other, Question) else Message
            )


def test_digest_outlives_an_update() -> None:
    """A copy that comes after an update is known again: what its device did not name counts for nothing."""
    tool = {"type": "function", "function": {"name": "f"}}
    for asked in ({"id": "j", "prompt": "x"}, {"id": "j", "prompt": "x", "seed": 1, "tools": [tool]}):
        now = read(asked)
        named = {name: value for name, value in msgspec.structs.asdict(now).items() if name != "priority"}
        assert NextQuestion(**named).digest() == now.digest()
        assert NextQuestion(**named, grammar="g").digest() != now.digest()


def test_digest_stays_as_it_is() -> None:
    """Pinned: journals hold it. Whoever has to change this makes devices' copies from before `bad_request`."""
    asked = read({"id": "j", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "stop": ["y"]})
    assert asked.digest().hex() == "6f41188672d3fce2cbe984c0c32fda5d3032a54935c6aa8307e684b880a40c5d"


@pytest.mark.parametrize(
    "fields",
    [{"prompt": "b"}, {"max_tokens": 5}, {"seed": 3}, {"stop": "x"}, {"id": "q2"}, {"temperature": 1}],
)
def test_digest_tells_questions_apart(fields: dict[str, Any]) -> None:
    """Whatever changes the answer changes the digest."""
    asked = {"id": "q1", "prompt": "a"}
    assert read(asked).digest() != read(asked | fields).digest()
