"""The HTTP face of a running daemon, asked by the clients that people use: openai and ollama."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from broker import Mosquitto, free_port
from certificates import Authority
from daemon_process import DaemonProcess, MakeDaemon
from device import WAIT_S, MakeDevice

from edged.adapters.http.patience import HEAD_S

KEY = "a-key-for-tests-0123456789"
LONG = "tokens=2000 step_ms=20 speak"


class Served:
    """A node with an HTTP face."""

    def __init__(self, node: DaemonProcess, port: int) -> None:
        self.node = node
        self.url = f"http://127.0.0.1:{port}"
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=WAIT_S)
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=WAIT_S
        )

    def close(self) -> None:
        """Close the clients."""
        self.openai.close()
        self.http.close()

    def idle(self) -> Any:
        """Health of a moment when nothing is asked and nothing owed."""
        since = self.node.watcher.mark
        return self.node.wait_health(
            lambda h: not (h["active"] or h["queue"] or h["journal"]["unfinished"] or h["journal"]["outbox"]),
            since=since,
        )

    def chat(self, prompt: str, **fields: Any) -> Any:
        """A chat completion of the scripted model."""
        fields = {"model": "scripted", **fields}
        return self.openai.chat.completions.create(messages=[{"role": "user", "content": prompt}], **fields)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto) -> Iterator[Served]:
    """A scripted node with an HTTP face, for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("served")
    sections, port = with_http(folder)
    sections["node"] = {"id": "served"}
    node = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections, scripted=True)
    made = Served(node.start(), port)
    yield made
    made.close()
    assert node.terminate() == 0
    assert node.close() == []


def with_http(folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Settings of an HTTP face with a key, and its port."""
    (folder / "key").write_text(f"{KEY}\n")
    port = free_port()
    return {"http": {"enabled": True, "port": port, "key_file": str(folder / "key")}}, port


def serve(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path, **options: Any) -> Served:
    """A node of a test's own with an HTTP face, started."""
    sections, port = with_http(tmp_path)
    node = daemon(broker, {**sections, **options.pop("sections", {})}, scripted=True, **options)
    return Served(node.start(), port)


def test_a_chat_completion(served: Served) -> None:
    """One answer, whole, with the counts that the engine made."""
    answer = served.chat("tokens=3 say something", max_tokens=20, seed=1, stop=["w9"])
    assert answer.choices[0].message.content == "w0 w1 w2 "
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 3)
    assert answer.usage.total_tokens == 7
    assert answer.model == "scripted"
    assert answer.edged["node"] == served.node.node


def test_a_streamed_chat_completion(served: Served) -> None:
    """The pieces joined are the answer; the last chunks tell why it ended and what it cost."""
    chunks = list(served.chat("tokens=30 step_ms=5", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(f"w{n} " for n in range(30))
    assert len(chunks) > 4
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 30


def test_an_answer_without_words(served: Served) -> None:
    """One that was nothing but thinking, or a refusal, is sent back as OpenAI's client holds it."""
    said = openai.types.chat.ChatCompletionMessage(
        role="assistant", content=None, refusal="I would rather not."
    )
    hello, more = {"role": "user", "content": "hello"}, {"role": "user", "content": "tokens=2"}
    asked: Any = [hello, said.model_dump(), more]
    answer = served.openai.chat.completions.create(model="scripted", messages=asked)
    assert answer.choices[0].message.content == "w0 w1 "


def test_thinking_is_told_apart(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """`reasoning_content` in a message and in deltas, as DeepSeek's own server does."""
    served = serve(daemon, broker, tmp_path, environment={"SCRIPTED_THINKS": "1"})
    answer = served.chat("tokens=12", extra_body={"reasoning": {"budget": 4}})
    assert answer.choices[0].message.reasoning_content.split() == ["w0", "w1", "w2", "w3"]
    chunks = list(served.chat("tokens=12", stream=True, extra_body={"reasoning": {"budget": 4}}))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    told = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert told == answer.choices[0].message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == answer.choices[0].message.content
    quiet = served.chat("tokens=5", reasoning_effort="none")
    assert not hasattr(quiet.choices[0].message, "reasoning_content")
    served.close()


def test_completions_models_health_and_metrics(served: Served) -> None:
    """The rest of OpenAI's paths, and those for whoever watches."""
    before = served.idle()["counts"]["done"]
    answer = served.openai.completions.create(model="edged", prompt="tokens=2 go")
    assert answer.choices[0].text == "w0 w1 "
    pieces = served.openai.completions.create(model="scripted", prompt="tokens=4 go", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "w0 w1 w2 w3 "
    assert [model.id for model in served.openai.models.list()] == ["scripted"]
    assert served.openai.models.retrieve("scripted").id == "scripted"
    assert served.idle()["counts"]["done"] == before + 2
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok"}
    assert served.http.get("/health").json()["health"]["counts"]["done"] >= before + 2
    metrics = served.http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "edged_" in metrics.text


def test_who_may_ask(served: Served) -> None:
    """Without the key nothing but the state is told."""
    stranger = served.openai.with_options(api_key="another-key-0123456789")
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "unauthorized"
    assert httpx.get(f"{served.url}/metrics").status_code == 401
    assert httpx.get(f"{served.url}/api/tags").json()["error"].startswith("send the node's key")


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found", "there is scripted"),
        ({"n": 2}, 400, "unsupported", "n is not supported"),
        ({"logprobs": True}, 400, "unsupported", "logprobs"),
        ({"temperature": 3.0}, 400, "bad_request", "temperature must be 0 to 2"),
        ({"extra_body": {"frobnicate": 1}}, 400, "bad_request", "unknown field 'frobnicate'"),
        ({"extra_body": {"deadline_ms": 0}}, 400, "bad_request", "deadline_ms"),
    ],
)
def test_refusals(served: Served, fields: dict[str, Any], status: int, code: str, words: str) -> None:
    """A status that fits, OpenAI's error object, and the sentence that says what to change."""
    with pytest.raises(openai.APIStatusError) as refused:
        served.chat("hello", **fields)
    assert refused.value.status_code == status
    assert refused.value.code == code
    assert words in str(refused.value)


def test_sizes(served: Served) -> None:
    """Too many tokens, too many bytes in the question, too many in the body: refused before they cost anything."""
    with pytest.raises(openai.BadRequestError) as refused:
        served.chat("word " * 3000)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIStatusError) as refused_too:
        served.chat("x" * 70_000)
    assert refused_too.value.status_code == 413
    reply = served.http.post("/v1/chat/completions", content=b" " * 400_000)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    for body in (b"", b"[]", b"{", b"[" * 20_000, b"\xff{}"):
        reply = served.http.post("/v1/chat/completions", content=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request"), body[:9]
    for path in ("/v1/responses", "/chat/completions"):
        missing = served.http.post(path, json={}).json()["error"]
        assert missing["code"] == "not_found"
        assert "; ask /v1/chat/completions; the base URL" in missing["message"]


def test_a_reload_changes_how_much_is_read(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """The body was held to the size at the start: too large for it were questions that the limit now lets in."""
    one = serve(daemon, broker, tmp_path, sections={"limits": {"payload_bytes": 1024}})
    with pytest.raises(openai.APIStatusError) as refused:
        one.chat("x" * 30_000)
    assert refused.value.status_code == 413
    text = one.node.config.read_text()
    one.node.config.write_text(text.replace("payload_bytes = 1024", "payload_bytes = 65536"))
    os.kill(one.node.pid, signal.SIGHUP)
    assert one.node.wait_log("reloaded")["changed"] == {"limits.payload_bytes": 65536}
    assert one.chat("x" * 30_000).choices[0].message.content
    one.close()


def test_what_a_request_may_look_like(served: Served) -> None:
    """What is packed, or asked by another method, is told what to change; HTTP/2 is not spoken, in silence."""
    packed = served.http.post(
        "/v1/chat/completions", content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"}
    )
    assert packed.status_code == 415
    assert "send it without Content-Encoding" in packed.json()["error"]["message"]
    strange = served.http.get("/v1/chat/completions")
    assert (strange.status_code, strange.headers["allow"]) == (405, "POST")
    assert strange.json()["error"]["message"].endswith("here; use POST")
    wishes = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAoAAA"}
    assert served.http.get("/v1/models", headers=wishes).status_code == 200
    assert served.chat("tokens=1").choices[0].message.content, "nothing that was logged came behind this"
    assert not served.node.log("library_message"), "two lines of each request of Java's client"


def test_a_byte_order_mark_before_a_body(served: Served) -> None:
    """Windows' editors write one, and over MQTT it does no harm: it was "malformed: invalid character (byte 0)"."""
    body = b'\xef\xbb\xbf{"model": "edged", "prompt": "tokens=3 x"}'
    assert served.http.post("/v1/completions", content=body).json()["choices"][0]["text"] == "w0 w1 w2 "


def test_an_empty_line_behind_a_body(served: Served) -> None:
    """As sketches send it that `println` a body: it is no request, and was answered with 400 and the end."""
    body = b'{"model": "edged", "prompt": "tokens=3 x"}'
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port or 0)) as sock:
        sock.settimeout(WAIT_S)
        got = b""
        # The first with the body, the second alone and in two pieces, the third before a connection's end.
        for sent in (
            request + b"\r\n",
            request,
            b"\r",
            b"\n" + request.replace(b"host:", b"connection: close\r\nhost:"),
        ):
            done = got.count(b"w0 w1 w2 ") + sent.count(b"POST")
            sock.sendall(sent)
            while got.count(b"w0 w1 w2 ") < done:
                more = sock.recv(65536)
                assert more, got
                got += more
        while data := sock.recv(65536):
            got += data
    assert got.count(b"HTTP/1.1 200") == got.count(b"HTTP/1.1") == 3


def test_a_full_queue(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """429 with the time after which to come again."""
    sections = {"limits": {"queue_jobs": 2, "client_jobs": 1}}
    served = serve(daemon, broker, tmp_path, sections=sections)
    stream = served.chat(LONG, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as refused:
        served.chat("hello")
    assert refused.value.code == "busy"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert served.chat("hello", user="someone-else").choices[0].message.content  # another client's share
    stream.close()
    served.close()


def test_a_client_that_goes_cancels(served: Served) -> None:
    """Closing a stream, or a connection that waits for the whole answer, gives the slot back at once."""
    before = served.idle()["counts"]["cancelled"]
    stream = served.chat(LONG, stream=True)
    next(iter(stream))
    stream.close()
    served.idle()
    impatient = served.openai.with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model="edged", messages=[{"role": "user", "content": LONG}])
    assert served.idle()["counts"]["cancelled"] == before + 2


def test_a_slow_reader_gets_everything(served: Served) -> None:
    """What it does not read waits within a bound; the end brings the rest."""
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port or 0)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b'{"model": "edged", "stream": true, "prompt": "tokens=2000 x"}'
        head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        sock.sendall(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        served.node.wait_log("job_finished", lambda line: line["tokens"] > 1000)
        got = b""
        sock.settimeout(WAIT_S)
        while data := sock.recv(65536):
            got += data
    assert b"w1999 " in got
    assert got.count(b"[DONE]") == 1


def test_the_same_key_asks_once(served: Served) -> None:
    """`Idempotency-Key`: copies get one answer, a later one the stored one; a lost connection costs none."""
    headers = {"Idempotency-Key": "order 66"}
    prompt = "tokens=40 step_ms=20"
    answers: list[str] = []
    before = served.idle()["counts"]["done"]

    def also() -> None:
        answers.append(served.chat(prompt, extra_headers=headers).choices[0].message.content)

    first = served.chat(prompt, stream=True, extra_headers=headers)
    next(iter(first))
    first.close()
    copy = threading.Thread(target=also)
    copy.start()
    also()
    copy.join()
    also()
    assert len(answers) == 3
    assert len(set(answers)) == 1
    assert answers[0].startswith("w0 w1")
    assert served.idle()["counts"]["done"] == before + 1
    with pytest.raises(openai.BadRequestError):
        served.chat("another", extra_headers=headers)


def test_a_key_that_is_taken(served: Served) -> None:
    """Another question under a key is refused while the first runs, whose reader hears nothing of it, and later."""
    headers = {"Idempotency-Key": "1"}
    first = served.chat("tokens=60 step_ms=20", stream=True, extra_headers=headers)
    next(iter(first))
    with pytest.raises(openai.BadRequestError, match="this Idempotency-Key names another question"):
        served.chat("another", extra_headers=headers)
    same = served.chat("tokens=60 step_ms=20", extra_headers=headers, extra_body={"deadline_ms": 60_000})
    rest = "".join(chunk.choices[0].delta.content or "" for chunk in first)
    assert same.choices[0].message.content.endswith(rest)
    assert rest.endswith("w59 ")
    with pytest.raises(openai.BadRequestError, match="named another question"):
        served.chat("another", extra_headers=headers)


def test_without_a_broker(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """HTTP works while the broker is away, from the start on."""
    sections, port = with_http(tmp_path)
    sections["mqtt"] = {"port": free_port()}
    node = daemon(broker, sections, scripted=True).launch()
    node.wait_log("engine_ready")
    served = Served(node, port)
    assert served.chat("tokens=3").choices[0].message.content == "w0 w1 w2 "
    assert len(list(served.chat("tokens=3", stream=True))) > 2
    served.close()
    assert node.terminate() == 0


def test_the_engine_breaks(served: Served) -> None:
    """A question that breaks the engine each time ends its stream with an error, and other questions go on."""
    with pytest.raises(openai.APIError) as broken:
        list(served.chat("tokens=6 step_ms=50 crash=SIGKILL at=3", stream=True))
    assert broken.value.code == "poison"
    assert served.chat("tokens=2").choices[0].message.content == "w0 w1 "


def test_restart(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """A kill in mid-answer: what nobody can wait for any more is ended, what has a key is answered."""
    served = serve(daemon, broker, tmp_path)
    lost = served.chat(LONG, stream=True)
    next(iter(lost))
    kept = served.chat("tokens=60 step_ms=20", stream=True, extra_headers={"Idempotency-Key": "k"})
    next(iter(kept))
    served.node.kill()
    for stream in (lost, kept):
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    served.node.start()
    served.node.wait_log("job_cancelled")
    again = served.chat("tokens=60 step_ms=20", extra_headers={"Idempotency-Key": "k"})
    assert again.choices[0].message.content.startswith("w0 ")
    served.idle()
    served.close()


def test_the_orderly_end(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """Who waits longer than the grace after SIGTERM is told to ask again, and the node ends in time with code 0."""
    served = serve(daemon, broker, tmp_path)
    stream = served.chat(LONG, stream=True)
    next(iter(stream))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(served.chat, LONG)
        served.node.wait_health(lambda h: h["active"] == 2)
        assert served.node.terminate() == 0
        with pytest.raises(openai.APIError, match="ask again") as cut:
            list(stream)
        with pytest.raises(openai.InternalServerError, match="ask again") as refused:
            waiting.result(WAIT_S)
    assert (cut.value.code, refused.value.code, refused.value.status_code) == (*["interrupted"] * 2, 503)
    assert refused.value.response.headers["retry-after"] == "5"
    assert not served.node.log("library_message"), "uvicorn complains of what it had to cancel"
    served.close()


def test_mqtt_cannot_speak_for_http(served: Served, shared_broker: Mosquitto, device: MakeDevice) -> None:
    """A device whose topic names a client of HTTP is not heard, and none may write into its replies."""
    imp = device(shared_broker, "imp", node="served")
    imp.publish(f"edged/v1/node/{served.node.node}/ask/http:-", b"tokens=2")
    job = imp.ask("tokens=2", reply_to="edged/v1/client/http:-/answer/x")
    assert imp.answer(job).last["code"] == "bad_request"
    served.node.wait_log("message_dropped", lambda line: line["topic"].endswith("/http:-"))


def test_a_key_is_demanded(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """An address that others reach needs a key; a key must be one."""
    cases: list[dict[str, Any]] = [
        {"host": "0.0.0.0"},  # noqa: S104 - refused
        {"key_file": str(tmp_path / "short")},
        {"key_file": str(tmp_path / "none")},
    ]
    (tmp_path / "short").write_text("secret\n")
    for values in cases:
        node = daemon(broker, {"http": {"enabled": True, "port": free_port(), **values}})
        assert node.launch().wait_end() == 78
        assert "http.key_file" in b"".join(node.raw).decode()


def test_loopback_without_a_key(daemon: MakeDaemon, broker: Mosquitto) -> None:
    """This machine's programs may ask; pages in its browser and foreign names for it may not."""
    port = free_port()
    node = daemon(broker, {"http": {"enabled": True, "port": port}}, scripted=True).start()
    url = f"http://127.0.0.1:{port}/v1/models"
    assert httpx.get(url).json()["data"][0]["id"] == "scripted"
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(url, headers={"origin": "https://evil.example"}).status_code == 403
    assert httpx.get(url, headers={"origin": "http://localhost:3000"}).status_code == 200
    for host in ("localhost", "LocalHost:80", f"127.0.0.1:{port}", "[::1]", f"[::1]:{port}"):
        assert httpx.get(url, headers={"host": host}).status_code == 200, host
        assert httpx.get(url, headers={"origin": f"http://{host}"}).status_code == 200, host
    for host in ("::1", "[::1", "[::2]", "localhost.evil.example", "127.0.0.1.evil.example:80"):
        assert httpx.get(url, headers={"host": host}).status_code == 403, host
        assert httpx.get(url, headers={"origin": f"http://{host}"}).status_code == 403, host
    assert httpx.get(url, headers={"origin": "null"}).status_code == 403
    node.terminate()


def test_pages_of_a_browser(served: Served, daemon: MakeDaemon, broker: Mosquitto) -> None:
    """A page of another origin may ask with the key, without one only this machine's: a browser asks that first."""
    port = free_port()
    node = daemon(broker, {"http": {"enabled": True, "port": port}}, scripted=True).start()
    here, elsewhere = "http://localhost:3000", "https://chat.example"
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    for base, origin, allowed in (
        (served.url, elsewhere, "*"),
        (served.url, "null", "*"),  # a page that was opened as a file
        (f"http://127.0.0.1:{port}", here, here),
        (f"http://127.0.0.1:{port}", elsewhere, None),
    ):
        chat = f"{base}/v1/chat/completions"
        before = httpx.options(chat, headers={"origin": origin, **wanted})
        assert before.is_success is (allowed is not None)
        assert before.headers.get("access-control-allow-origin") == allowed
        assert before.headers["access-control-allow-headers"] == wanted["access-control-request-headers"]
        asked = {"model": "edged", "messages": [{"role": "user", "content": "tokens=1"}], "stream": True}
        headers = {"origin": origin, "authorization": f"Bearer {KEY}"}
        answer = httpx.post(chat, json=asked, headers=headers)
        assert answer.status_code == (403 if allowed is None else 200)
        assert answer.headers.get("access-control-allow-origin") == allowed
    refused = httpx.get(f"{served.url}/v1/models", headers={"origin": elsewhere})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "access-control-allow-origin" not in served.http.get("/v1/models").headers
    node.terminate()


def test_tls(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """HTTPS with the board's certificate, verified by the client."""
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca")
    pair = authority.server()
    sections, port = with_http(tmp_path)
    sections["http.tls"] = {"cert": str(pair.cert), "key": str(pair.key)}
    daemon(broker, sections, scripted=True).start()
    silent = socket.create_connection(("localhost", port))
    context = ssl.create_default_context(cafile=str(authority.pem))
    assert httpx.get(f"https://localhost:{port}/health", verify=context).json() == {"status": "ok"}
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://localhost:{port}/health")
    silent.settimeout(2 * HEAD_S)  # asyncio's own patience is a minute
    with silent:
        assert silent.recv(1) == b"", "who never shakes hands holds a file of the daemon"
