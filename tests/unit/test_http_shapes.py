"""OpenAI's and Ollama's requests and replies as conversions: what is passed on, what refused, what comes out."""

from __future__ import annotations

from typing import Any

import msgspec
import ollama
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.adapters.http import ollama_replies, ollama_requests, openai_replies, openai_requests
from edged.adapters.http.errors import STATUS, HttpError, of_reply
from edged.core.parsing import Bounds, Envelope, parse
from edged.core.topics import Topics
from edged.errors import CODES, Refusal

ASK: dict[str, Any] = {"model": "edged", "messages": [{"role": "user", "content": "hello"}]}
DONE: dict[str, Any] = {
    "type": "done",
    "text": "warm",
    "finish_reason": "deadline",
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 2, "reasoning_tokens": 1},
    "timings": {"queue_ms": 1, "prefill_ms": 20, "decode_ms": 300},
    "node": "n1",
}


def test_what_clients_send_unasked_is_a_question() -> None:
    """OpenAI's client, Open WebUI and Jan send these whether their user set them or not."""
    body = {
        **ASK,
        "n": 1,
        "logprobs": False,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "user": "ann",
        "store": False,
        "metadata": {},
        "max_completion_tokens": 9,
        "stream": True,
        "parallel_tool_calls": True,
        "top_p": 0.9,
        "stop": None,
        "logit_bias": {},
        "top_k": 40,
        "modalities": ["text"],
        "reasoning_effort": "minimal",
    }
    wish = openai_requests.chat_wish(body, None)
    assert wish.client == "ann"
    assert wish.fields == {
        "messages": ASK["messages"],
        "parallel_tool_calls": True,
        "stream": True,
        "max_tokens": 9,
        "top_p": 0.9,
        "reasoning": {"budget": 0},
    }
    payload = msgspec.json.encode(wish.fields)
    question = parse(payload, Envelope("http:ann", "q1"), Topics("edged", "n1"), Bounds())
    assert (question.max_tokens, question.top_p, question.reasoning_budget) == (9, 0.9, 0)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        *[("n", 2, "unsupported"), ("logprobs", True, "unsupported"), ("top_logprobs", 3, "unsupported")],
        *[("presence_penalty", 0.5, "unsupported"), ("logit_bias", {"1": 2}, "unsupported")],
        *[("top_k", 20, "unsupported"), ("min_p", 0.1, "unsupported"), ("audio", {}, "unsupported")],
        *[("functions", [{}], "unsupported"), ("mirostat", 1, "bad_request"), ("prompt", "x", "bad_request")],
        *[("stream", "true", "bad_request"), ("stream", 1, "bad_request")],
    ],
)
def test_what_would_change_the_answer_is_refused(name: str, value: object, code: str) -> None:
    """And the refusal names the field."""
    with pytest.raises(Refusal) as refused:
        openai_requests.chat_wish({**ASK, name: value}, None)
    assert refused.value.code == code
    assert name in refused.value.message


def test_turns() -> None:
    """Parts of text are joined, developers are systems, what came of an earlier answer is left out."""
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [{"type": "text", "text": "and kind"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "reasoning_content": "hm", "refusal": None, "annotations": []},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": None, "refusal": "no", "tool_calls": None},
        {"role": "user", "content": "e"},
        {"role": "assistant", "reasoning_content": "hm", "tool_calls": []},
    ]
    wish = openai_requests.chat_wish({**ASK, "messages": messages}, None)
    assert wish.fields["messages"] == [
        {"role": "system", "content": "be brief\n\nand kind"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": "", "tool_calls": []},
    ]
    for bad in ([{"type": "image_url", "image_url": {"url": "x"}}], [3]):
        with pytest.raises(Refusal, match="text only"):
            openai_requests.chat_wish({**ASK, "messages": [{"role": "user", "content": bad}]}, None)
    odds: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": {"text": "a"}}, {"role": "system", "content": "b"}],
        [{"role": "system", "content": "a"}, {"role": "system", "content": 3}],
    ]
    for odd in odds:
        refused = openai_requests.chat_wish({**ASK, "messages": odd}, None)
        assert [one["content"] for one in refused.fields["messages"]] == [one["content"] for one in odd]
    for strange in (["x"], [{"role": "user", "content": "x", "audio": {}}]):
        with pytest.raises(Refusal, match=r"messages\[0\]"):
            openai_requests.chat_wish({**ASK, "messages": strange}, None)


def test_completions() -> None:
    """One prompt, as text or as a list of one; thinking is not shown."""
    wish = openai_requests.completion_wish({"model": "m", "prompt": ["go"], "max_tokens": 3}, "k")
    assert wish.fields == {"stream": False, "prompt": "go", "max_tokens": 3, "reasoning": {"mode": "hide"}}
    assert wish.key == "k"
    with pytest.raises(Refusal):
        openai_requests.completion_wish({"model": "m", "prompt": ["a", "b"]}, None)
    with pytest.raises(Refusal, match="chat/completions"):  # the answer would be text, and a call was lost
        openai_requests.completion_wish({"model": "m", "prompt": "a", "tools": [{"type": "function"}]}, None)
    with pytest.raises(Refusal, match="logprobs"):  # 0 asks for those of the tokens themselves
        openai_requests.completion_wish({"model": "m", "prompt": "a", "logprobs": 0}, None)


def test_a_whole_chat_completion() -> None:
    """A deadline is told as a length; tools are in the message; the counts are the engine's."""
    shape = openai_replies.ChatShape("1", "edged")
    calls = [{"id": "call_1", "type": "function", "function": {"name": "lamp", "arguments": '{"on":true}'}}]
    told = shape.whole({**DONE, "reasoning": "hm"}, calls)
    [choice] = told["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"] == calls
    assert choice["message"]["reasoning_content"] == "hm"
    assert told["usage"]["total_tokens"] == 13
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert told["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}
    chunk = msgspec.json.decode(shape.calls(calls).removeprefix(b"data: "))
    assert chunk["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


@pytest.mark.parametrize(
    ("details", "param"),
    [
        ({"prompt_tokens": 9000, "context": 2048}, None),
        ({"prompt_tokens": 40, "completion_tokens": 2008, "context": 2048}, None),
        ({"prompt_tokens": 40, "completion_tokens": 9, "context": 2048, "max_tokens": 9}, "max_tokens"),
        ({"prompt_tokens": 40, "completion_tokens": 9, "context": 2048, "stop": [":"]}, "stop"),
    ],
)
def test_what_is_too_long(details: dict[str, Any], param: str | None) -> None:
    """Programs that hear of the context shorten the conversation: in vain, where `max_tokens` or `stop` cut it."""
    reply = {"type": "error", "code": "too_long", "message": "too long", "details": details}
    told = openai_replies.error_body(of_reply(reply))["error"]
    assert (told["code"], told["param"]) == ("too_long" if param else "context_length_exceeded", param)


def test_ollama_requests() -> None:
    """Options by their names in the contract; the format as a schema; calls and their results get ids."""
    lamp = {"name": "lamp", "arguments": {"on": 1}}
    body = {
        "model": "m",
        "options": {"num_predict": 5, "num_ctx": 8192, "temperature": 0, "top_k": 40, "min_p": None},
        "format": {"type": "object"},
        "think": False,
        "keep_alive": "5m",
        "tools": [{"type": "function"}],
        "messages": [
            {"role": "user", "content": "lamp on"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": lamp}],
            },
            {"role": "tool", "content": "done", "tool_name": "lamp"},
        ],
    }
    wish = ollama_requests.chat_wish(body, None)
    assert wish is not None
    assert wish.fields["stream"] is True
    assert (wish.fields["max_tokens"], wish.fields["temperature"]) == (5, 0)
    assert wish.fields["response_format"]["json_schema"] == {"schema": {"type": "object"}}
    assert wish.fields["reasoning"] == {"mode": "hide", "budget": 0}
    _, call, result = wish.fields["messages"]
    assert call["tool_calls"][0]["function"] == {"name": "lamp", "arguments": '{"on":1}'}
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert ollama_requests.chat_wish({"model": "m", "messages": []}, None) is None
    assert ollama_requests.generate_wish({"model": "m", "prompt": ""}, None) is None


def test_what_stands_beside_ollamas_options() -> None:
    """Vercel's AI SDK sets these so, the choice of tools each time: whoever had tools was refused for it."""
    lamp = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
    body = {**ASK, "temperature": 0.1, "top_p": 0.5, "max_output_tokens": 12, "think": False, "stream": False}
    wish = ollama_requests.chat_wish({**body, "tools": [lamp], "tool_choice": "required"}, None)
    assert wish is not None
    payload = msgspec.json.encode(wish.fields)
    question = parse(payload, Envelope("http:-", "q1"), Topics("edged", "n1"), Bounds())
    assert (question.temperature, question.top_p, question.max_tokens) == (0.1, 0.5, 12)
    assert wish.fields["tool_choice"] == "required"
    again = ollama_requests.chat_wish({**body, "tool_choice": "auto", "options": {"num_predict": 9}}, None)
    assert again is not None
    assert (again.fields["max_tokens"], "tool_choice" in again.fields) == (9, False)


def test_a_tool_without_parameters_as_go_writes_it() -> None:
    """Ollama's Go client has null for properties that are not set, which is no JSON schema."""
    clock = {"name": "clock", "parameters": {"type": "object", "properties": None}}
    tools = [{"type": "function", "function": clock}]
    wish = ollama_requests.chat_wish({**ASK, "tools": tools}, None)
    assert wish is not None
    [told] = wish.fields["tools"]
    assert told["function"] == {"name": "clock", "parameters": {"type": "object"}}
    for odd in ([1], [{"function": None}], "x", {"a": 1}):  # the contract's to refuse
        again = ollama_requests.chat_wish({**ASK, "tools": odd}, None)
        assert again is not None
        assert again.fields["tools"] == odd


def test_a_history_that_home_assistant_has_cut() -> None:
    """A result whose call is gone is left out, an answer of thinking alone is an empty one: both are questions."""
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "lamp", "arguments": {"on": 1}}}]}
    result = {"role": "tool", "content": "{}"}
    system, asked = {"role": "system", "content": "x"}, {"role": "user", "content": "and the yard?"}
    silent = {"role": "assistant", "thinking": "hm"}
    wish = ollama_requests.chat_wish({**ASK, "messages": [system, result, silent, asked]}, None)
    assert wish is not None
    assert wish.fields["messages"] == [system, {"role": "assistant", "content": ""}, asked]
    payload = msgspec.json.encode(wish.fields)
    assert (
        parse(payload, Envelope("http:-", "q1"), Topics("edged", "n1"), Bounds()).messages[-1].role == "user"
    )
    whole = ollama_requests.chat_wish(
        {**ASK, "messages": [asked, call, result, result, asked, call, result]}, None
    )
    assert whole is not None
    assert [turn["role"] for turn in whole.fields["messages"]] == ["user", "assistant", "tool"] * 2
    with pytest.raises(Refusal, match="no call before"):
        ollama_requests.chat_wish({**ASK, "messages": [asked, result]}, None)


def test_what_ollama_says_itself_of_what_is_not_set() -> None:
    """Its defaults of -1, which programs write out, ask for what comes without them."""
    wish = ollama_requests.chat_wish({**ASK, "options": {"seed": -1, "num_predict": -1.0}}, None)
    assert wish is not None
    assert wish.fields == {"stream": True, "messages": ASK["messages"]}


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"])
def test_a_line_is_one_line_to_python(end: str) -> None:
    """Ends of lines that JSON leaves as they are cut no stream in two, and come out of it as they went in."""
    text = f"a{end}b"
    lines = [
        ollama_replies.OllamaChat("m").part("text", text),
        ollama_replies.OllamaGenerate("m").part("reasoning", text),
        ollama_replies.OllamaChat("m").error(HttpError(500, "internal", text)),
        openai_replies.ChatShape("1", "m").part("text", text),
    ]
    for line in lines:
        [told] = line.decode().strip().splitlines()
        assert repr(text) in repr(msgspec.json.decode(told.removeprefix("data: ")))


@pytest.mark.parametrize(
    "more",
    [
        {"options": {"repeat_penalty": 1.3}},
        {"options": {"frob": 1}},
        {"options": 3},
        {"format": "xml"},
        {"messages": "x"},
        {"messages": [3]},
        {"messages": [{"role": "user", "content": "x", "images": ["aa"]}]},
        {"messages": [{"role": "assistant", "tool_calls": [3]}]},
        {"frob": 1},
        {"logprobs": True},
        {"stream": "false"},
    ],
)
def test_ollama_refusals(more: dict[str, Any]) -> None:
    """What would change the answer, or is no shape of Ollama's."""
    with pytest.raises(Refusal):
        ollama_requests.chat_wish({**ASK, **more}, None)


def test_a_sign_of_life() -> None:
    """While a prompt waits or is read: proxies cut a stream that says nothing, nginx after a minute."""
    chat = ollama.ChatResponse(**msgspec.json.decode(ollama_replies.OllamaChat("m").silence()))
    assert (chat.message.content, chat.done) == ("", False)
    piece = ollama.GenerateResponse(**msgspec.json.decode(ollama_replies.OllamaGenerate("m").silence()))
    assert (piece.response, piece.done) == ("", False)
    assert openai_replies.ChatShape("id", "m").silence().startswith(b":")


def test_ollama_replies() -> None:
    """Times in nanoseconds, arguments as an object."""
    shape = ollama_replies.OllamaChat("m")
    calls = [{"id": "c", "type": "function", "function": {"name": "lamp", "arguments": '{"on":true}'}}]
    told = shape.whole(DONE, calls)
    assert told["message"]["tool_calls"] == [{"function": {"name": "lamp", "arguments": {"on": True}}}]
    assert (told["eval_duration"], told["prompt_eval_count"], told["done"]) == (300_000_000, 9, True)
    assert ollama_replies.arguments_of("{broken") == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    openai_requests.PASSED
    | openai_requests.OWN
    | openai_requests.READ
    | openai_requests.HARMLESS
    | openai_requests.NEUTRAL.keys()
    | ollama_requests.CHAT
    | ollama_requests.GENERATE
)
TURN = st.dictionaries(
    st.sampled_from(sorted(openai_requests.MESSAGE | ollama_requests.MESSAGE)), JSON, max_size=4
)


@example({"reasoning_effort": []}, None, None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
    st.none() | st.lists(TURN, max_size=3),
    st.none() | st.dictionaries(st.sampled_from(sorted(ollama_requests.OPTIONS_NEUTRAL)) | st.text(), JSON),
)
def test_any_body(body: dict[str, Any], messages: list[Any] | None, options: dict[str, Any] | None) -> None:
    """Any JSON is a question or a refusal."""
    body |= {} if messages is None else {"messages": messages}
    body |= {} if options is None else {"options": options}
    for wish in (
        openai_requests.chat_wish,
        openai_requests.completion_wish,
        ollama_requests.chat_wish,
        ollama_requests.generate_wish,
    ):
        try:
            wished = wish(body, None)
        except Refusal:
            continue
        assert wished is None or msgspec.json.encode(wished.fields)


def test_every_code_has_a_status() -> None:
    """And an error of the node is told under it, with the time to wait."""
    assert set(STATUS) == CODES
    error = of_reply({"type": "error", "code": "busy", "message": "full", "retry_after_ms": 1500})
    assert (error.status, error.headers) == (429, {"retry-after": "2", "retry-after-ms": "1500"})
    assert of_reply({"type": "cancelled"}).status == 503
    assert (
        openai_replies.error_body(HttpError(404, "model_not_found", "no"))["error"]["type"]
        == "not_found_error"
    )
