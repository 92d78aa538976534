"""Which questions go to a larger server, how they look there, how its stream is read."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.parsing import Bounds, Envelope, Misread, parse
from edged.core.question import Question
from edged.core.topics import Topics
from edged.core.upstream import Policy, request
from edged.core.upstream_stream import (
    LINE_BYTES_MAX,
    BadStreamError,
    QuestionRefusedError,
    Stream,
    refusal,
    seconds_told,
)

POLICY = Policy("gpu:8000", "big-7b", frozenset({"asked", "context", "hot"}))


def question(text: bytes, models: tuple[str, ...] = POLICY.names()) -> Question:
    """A question as the node reads it."""
    return parse(text, Envelope("c1", "q1"), Topics("edged", "n1"), Bounds(models=models))


@pytest.mark.parametrize(
    ("asked", "level", "when", "why"),
    [
        ("large", "cool", {"asked"}, "asked"),
        ("big-7b", "hot", {"asked", "hot"}, "asked"),
        (None, "cool", {"asked", "context", "hot"}, None),
        (None, "warm", {"hot"}, None),
        (None, "hot", {"hot"}, "hot"),
        (None, "critical", {"hot"}, "hot"),
        (None, "critical", {"asked", "context"}, None),
        (None, None, {"hot"}, None),
    ],
)
def test_what_goes_there(asked: str | None, level: str | None, when: set[str], why: str | None) -> None:
    """By its name, or because the board is hot; only for reasons that the settings name."""
    policy = msgspec.convert({"host": "h", "model": "big-7b", "when": list(when)}, Policy)
    one = msgspec.structs.replace(question(b'{"prompt": "x"}'), model=asked)
    assert policy.why(one, level) == why


def test_names() -> None:
    """Known names are taken, others refused; without a server none is known."""
    assert question(b'{"prompt": "x", "model": "large"}').model == "large"
    assert question(b'{"prompt": "x"}').model is None
    for models, code in ((POLICY.names(), "bad_request"), ((), "unsupported")):
        with pytest.raises(Misread) as misread:
            question(b'{"prompt": "x", "model": "gpt-9"}', models)
        assert misread.value.refusal.code == code
    assert Policy("h", "m", frozenset({"context"})).names() == ()


def test_a_request() -> None:
    """OpenAI's shape; what the question leaves open is not mentioned; the schema goes along."""
    asked = question(
        b'{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "max_tokens": 5,'
        b' "stop": "x", "temperature": 0, "response_format": {"type": "json_schema", "json_schema": {"schema":'
        b' {"type": "object"}}}}'
    )
    told = msgspec.json.decode(request(asked, asked.messages, "big-7b"))
    schema = told.pop("response_format")["json_schema"]
    assert schema["schema"] == {"type": "object"}
    assert told == {
        "model": "big-7b",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0,
        "stop": ["x"],
    }


STREAM = (
    b': hello\n\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\r\n\r\n'
    b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"gr\xc3\xbc"}}]}\n\ndata:{"choices":[{"delta":{"content":"n"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":3}}}\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_cut_anywhere(cuts: list[int]) -> None:
    """Texts, end and cost are the same wherever the network cuts it."""
    places = [0, *sorted(cuts), len(STREAM)]
    stream = Stream()
    told = [one for a, b in itertools.pairwise(places) for one in stream.feed(STREAM[a:b])]
    assert told == [("reasoning", "hm"), ("text", "grü"), ("text", "n")]
    assert (stream.finish, stream.ended) == ("length", True)
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens, stream.usage.cached_tokens) == (
        7,
        2,
        3,
    )


@pytest.mark.parametrize(
    ("reasons", "end", "finish"),
    [
        (['""', '""'], b"", None),
        (["null", "null"], b"", None),
        (['""', '"length"'], b"", "length"),
        (['""', '""'], b"data: [DONE]\n\n", "stop"),
        (["null", "null"], b"data: [DONE]\n\n", "stop"),
        (['"length"', '""'], b"data: [DONE]\n\n", "length"),
        ([], b"data: [DONE]\n\n", None),
    ],
)
def test_an_end_that_is_not_told(reasons: list[str], end: bytes, finish: str | None) -> None:
    """An empty reason is none: an answer that broke off was whole to the device. `[DONE]` says that it is whole."""
    chunk = 'data: {"choices":[{"delta":{"content":"x"},"finish_reason":%s}]}\n\n'
    stream = Stream()
    stream.feed("".join(chunk % reason for reason in reasons).encode() + end)
    assert stream.finish == finish


@pytest.mark.parametrize(
    "data",
    [
        b"data: {broken}\n",
        b"data: 3\n",
        b'data: {"choices": 3}\n',
        b'data: {"error": {"message": "out of memory"}}\n',
        b"data: " + b"x" * LINE_BYTES_MAX + b"x\n",
        b"data: " + b"x" * (LINE_BYTES_MAX + 1),
        b"data: " + b"[" * 20_000 + b"\n",
        b"data: \xff\n",
    ],
)
def test_a_stream_that_is_none(data: bytes) -> None:
    """It is refused, and bounded before it is parsed."""
    with pytest.raises(BadStreamError):
        Stream().feed(data)


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ('{"prompt_tokens": null, "completion_tokens": 2}', (0, 2)),
        ('{"prompt_tokens": "7", "completion_tokens": 2.5}', (0, 0)),
        ('{"prompt_tokens": -1, "completion_tokens": 1%s}' % ("0" * 400), (0, 0)),
        ('{"prompt_tokens": 7, "prompt_tokens_details": [3]}', (7, 0)),
        ('"free"', (0, 0)),
    ],
)
def test_a_cost_that_cannot_be_read(told: str, cost: tuple[int, int]) -> None:
    """The answer has come all the same: it was computed anew, or failed, for the sake of its cost."""
    stream = Stream()
    chunk = '{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":%s}'
    assert stream.feed(f"data: {chunk % told}\n\n".encode()) == [("text", "x")]
    assert stream.finish == "stop"
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == cost


TOO_LONG = (
    b'{"error": {"message": "full", "type": "invalid_request_error", "code": "context_length_exceeded"}}'
)
TOO_FEW = b'{"error": {"message": "few", "type": "invalid_request_error", "param": "max_tokens"}}'


@pytest.mark.parametrize(
    ("status", "body", "said", "cramped"),
    [
        (404, b'{"error": {"message": "no such\\nmodel"}}', "status 404: no such model", None),
        (500, b"<html>", "status 500", None),
        (502, b"[3]", "status 502", None),
        (400, b'{"error": "bad"}', "status 400: bad", False),
        (400, b'{"error": {"message": "odd", "code": [], "param": {}}}', "status 400: odd", False),
        (400, TOO_LONG, "status 400: full", True),
        (400, TOO_FEW, "status 400: few", True),
        (429, TOO_LONG, "status 429: full", None),
    ],
)
def test_refusals(status: int, body: bytes, said: str, cramped: bool | None) -> None:  # noqa: FBT001 - a table
    """What a server says when it refuses, in one line, and whether the question is to blame, or its size."""
    error = refusal(status, body, shaped=False)
    assert str(error) == said
    assert getattr(error, "cramped", None) is cramped


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("20", 20.0),
        (" 0 ", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Tue, 01 Dec 2026 12:00:30 GMT", 30.0),
        ("Tue, 01 Dec 2026 11:00:00 GMT", 0.0),
        ("Tue, 01 Dec 99999 12:00:30 GMT", None),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_when_a_server_has_a_place_again(told: str | None, seconds: float | None) -> None:
    """Seconds or a date; what cannot be read says nothing."""
    assert seconds_told(told, datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) == seconds


@pytest.mark.parametrize(("status", "wait_s"), [(429, 20.0), (503, 20.0), (500, None)])
def test_who_is_asked_to_wait(status: int, wait_s: float | None) -> None:
    """By the statuses that mean it."""
    error = refusal(status, b"", shaped=False, wait_s=20.0)
    assert isinstance(error, BadStreamError)
    assert error.wait_s == wait_s


@pytest.mark.parametrize(
    ("error", "cramped"),
    [
        (TOO_FEW, True),
        (b'{"error": {"message": "no", "type": "invalid_request_error"}}', False),
        (b'{"error": {"message": "no", "type": "BadRequestError", "code": 400}}', False),
        (b'{"error": {"message": "no", "type": "server_error", "code": []}}', None),
    ],
)
def test_an_error_in_the_stream(error: bytes, cramped: bool | None) -> None:  # noqa: FBT001 - a table
    """Another edged finds in mid-answer that `max_tokens` is too low for a schema: no fault of its own."""
    with pytest.raises((BadStreamError, QuestionRefusedError)) as refused:
        Stream().feed(b"data: " + error + b"\n")
    assert getattr(refused.value, "cramped", None) is cramped
