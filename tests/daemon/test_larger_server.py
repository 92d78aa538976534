"""A board with a larger server behind it: another edged daemon's HTTP face, and servers that misbehave."""

from __future__ import annotations

import gzip
import http.server
import json
import queue
import resource
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boards
import httpx
import pytest
from broker import Mosquitto, free_port
from certificates import Authority
from daemon_process import DaemonProcess, MakeDaemon, Sections
from device import MakeDevice

from edged.adapters.upstream import Link, Upstream
from edged.core.link import ThreadDied
from edged.core.upstream import Ask, Broke, Over
from edged.errors import SettingsError

KEY = "a-key-for-tests-0123456789"
TOO_LONG = "tokens=3 " + "word " * 400
SMALL: Sections = {"engine": {"slots": 2, "context_max": 256, "context_min": 256}}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto) -> Iterator[dict[str, Any]]:
    """A second daemon with an HTTP face; gives the settings that lead to it."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "key").write_text(KEY)
    port = free_port()
    sections: dict[str, dict[str, Any]] = {
        "node": {"id": "large"},
        "http": {"enabled": True, "port": port, "key_file": str(folder / "key")},
    }
    node = DaemonProcess(folder, shared_broker.host, shared_broker.port, sections, scripted=True).start()
    yield {"url": f"http://127.0.0.1:{port}/v1", "model": "scripted", "key_file": str(folder / "key")}
    assert node.terminate() == 0
    assert node.close() == []


@contextmanager
def misbehaving(reply: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends these bytes to whoever asks and hangs up; its address and what it was sent."""
    seen: list[bytes] = []

    class Misbehaving(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["content-length"])))
            self.wfile.write(reply)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}/v1", seen
        server.shutdown()
        thread.join()


def test_too_long_for_the_board(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]
) -> None:
    """It is answered by the larger server, by the same contract, and `done` says where; others stay here."""
    daemon(broker, {**SMALL, "upstream": large}, scripted=True).start()
    press = device(broker, "press")
    away = press.answer(press.ask(TOO_LONG)).check()
    assert away.text == "w0 w1 w2 "
    assert away.last["upstream"] == large["url"].split("/")[2]
    assert (away.last["node"], away.last["attempt"], away.last["finish_reason"]) == ("n1", 1, "stop")
    assert away.last["usage"]["completion_tokens"] == 3
    assert away.replies[0]["upstream"] == away.last["upstream"]
    near = press.answer(press.ask("tokens=2")).check()
    assert "upstream" not in near.last


def test_asked_for(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]) -> None:
    """`model` sends it on, also over HTTP; a cancel reaches it there; an unknown name is refused."""
    port = free_port()
    node = daemon(broker, {"upstream": large, "http": {"enabled": True, "port": port}}, scripted=True).start()
    press = device(broker, "press")
    away = press.answer(press.ask("tokens=30 step_ms=5", model="large")).check()
    assert away.text == "".join(f"w{n} " for n in range(30))
    assert len(away.deltas()) == len(away.text)
    assert press.answer(press.ask("x", model="gpt-9")).last["code"] == "bad_request"
    quiet = press.answer(press.ask("tokens=3", model="scripted", stream=False)).check(stream=False)
    assert quiet.last["upstream"]
    running = press.ask("tokens=2000 step_ms=20", model="large")
    press.wait_reply(running, "delta")
    press.control("cancel", running)
    assert press.answer(running).last["type"] == "cancelled"
    assert press.answer(running).last["text"].startswith("w0 ")
    late = press.answer(press.ask("tokens=2000 step_ms=20", model="large", deadline_ms=1500))
    assert late.last["finish_reason"] == "deadline"
    url = f"http://127.0.0.1:{port}"
    names = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
    assert "large" in names
    body = {"model": "large", "messages": [{"role": "user", "content": "tokens=2"}]}
    told = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()
    assert told["edged"]["upstream"] == large["url"].split("/")[2]
    health = node.wait_health(lambda h: h["upstream"]["active"] == 0)
    assert health["upstream"]["state"] == "closed"
    assert health["upstream"]["failed"] == 0
    libraries = {line["logger"] for line in node.log("library_message")}
    assert "httpx" not in libraries, "two lines of each question"


def test_asked_twice(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]
) -> None:
    """A device that heard nothing asks again while the larger server answers: it hears that it was taken on."""
    daemon(broker, {"upstream": large}, scripted=True).start()
    press = device(broker, "press")
    asked: dict[str, Any] = {"model": "large", "session": "s"}
    job = press.ask("tokens=60 step_ms=20", **asked)
    press.wait_reply(job, "delta")
    press.ask("tokens=60 step_ms=20", **asked, id=job)
    told = [reply for reply in press.answer(job).check().replies if reply["type"] == "accepted"]
    assert [reply.get("duplicate") for reply in told] == [None, True]
    assert [(reply["upstream"], reply["history"]) for reply in told] == [(large["url"].split("/")[2], 0)] * 2


def test_nothing_leaves_without_the_setting(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice
) -> None:
    """The default: too long is an error, a name is unsupported."""
    daemon(broker, SMALL, scripted=True).start()
    press = device(broker, "press")
    assert press.answer(press.ask(TOO_LONG)).last["code"] == "too_long"
    assert press.answer(press.ask("x", model="large")).last["code"] == "unsupported"


OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PROSE = b'data: {"choices":[{"delta":{"content":"It is hot."},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HALF = OK + b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n'


def test_a_server_that_fails(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice) -> None:
    """The board answers where it can, as the next attempt; then the breaker spares the server."""
    with misbehaving(HALF) as (url, seen):
        node = daemon(broker, {**SMALL, "upstream": {"url": url, "model": "big"}}, scripted=True).start()
        press = device(broker, "press")
        asked = press.answer(press.ask("tokens=2", model="large"))
        assert [reply["type"] for reply in asked.attempts[0]] == ["accepted", "delta"]
        assert asked.deltas() == asked.text == "w0 w1 "
        assert "upstream" not in asked.last
        assert asked.last["attempt"] == 2
        failed = press.answer(press.ask(TOO_LONG))
        assert failed.last["code"] == "too_long"
        assert failed.last["retry_after_ms"] > 0
        for _ in range(3):
            assert press.answer(press.ask("tokens=2", model="large")).text == "w0 w1 "
        assert node.wait_health(lambda h: h["upstream"]["state"] == "open")
        assert press.answer(press.ask(TOO_LONG)).last["code"] == "too_long"
        assert len(seen) == 3
        assert [line["reason"] for line in node.log("upstream_failed")] == ["the answer broke off"] * 3


def test_a_server_that_says_when_to_come_again(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice
) -> None:
    """It is not asked before; devices are told when that will be."""
    full = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 40\r\n\r\n"
    with misbehaving(full) as (url, seen):
        daemon(broker, {**SMALL, "upstream": {"url": url, "model": "big"}}, scripted=True).start()
        press = device(broker, "press")
        for _ in range(2):
            last = press.answer(press.ask(TOO_LONG)).last
            assert last["code"] == "too_long"
            assert 30_000 < last["retry_after_ms"] <= 40_000
        assert press.answer(press.ask("tokens=2", model="large")).text == "w0 w1 "
        assert len(seen) == 1


COMPLAINT = b'{"error": {"message": "no memory"}}'
SHAPED: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"schema": {"type": "integer", "maximum": 150}},
}
BROKEN = [
    (
        b"HTTP/1.1 500 Oh\r\ncontent-type: application/json\r\n\r\n" + COMPLAINT,
        "status 500: no memory",
        False,
    ),
    (b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\n\r\n" + COMPLAINT, "status 400: no memory", True),
    (b"HTTP/1.1 401 No\r\n\r\n", "status 401", False),
    (b"HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/v1\r\n\r\n", "status 302", False),
    (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>", "no stream but text/html", False),
    (OK + b"data: {nonsense}\n\n", "an event that cannot be read", False),
    (OK + b'data: {"error": {"message": "gone"}}\n\n', "an error in the stream: gone", False),
    (OK + b'data: {"error": {"message": "no", "code": 400}}\n\n', "an error in the stream: no", True),
    (OK + b": silence\n" * 600_000, "an answer of more than", False),
    (HALF, "the answer broke off", False),
    (HALF.replace(b"}]}", b',"finish_reason":""}]}'), "the answer broke off", False),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "RemoteProtocolError", False),
]


@pytest.mark.parametrize(("reply", "reason", "ours"), BROKEN)
def test_what_a_broken_server_says(reply: bytes, reason: str, ours: bool) -> None:  # noqa: FBT001 - a table
    """Each is one failure with a reason, within bounds, blamed on whom it concerns."""
    with misbehaving(reply) as (url, seen):
        broke = failure(Link(url, KEY, None, 5.0, 10.0, 2))
        assert broke.reason.startswith(reason)
        assert broke.ours is ours
        assert len(seen) == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 401 No\r\n\r\n", OK + b"data: "])
@pytest.mark.parametrize("before", ["", "x" * 160])
def test_a_server_that_repeats_the_key(head: bytes, before: str) -> None:
    """As LiteLLM has done with a wrong one: the reason goes into the log, and to the device that asked."""
    error = {"error": {"message": f"{before}Invalid token, received API Key = {KEY}, see the log"}}
    with misbehaving(head + json.dumps(error).encode() + b"\n\n") as (url, _):
        reason = failure(Link(url, KEY, None, 5.0, 10.0, 2)).reason
    assert KEY[:4] not in reason
    assert before or "API Key = ***, see the log" in reason


def test_an_answer_that_would_fill_the_memory() -> None:
    """Packed twice, 1 KB is 128 MB of line ends, 2 KB any number: what comes packed is not unpacked."""
    packer = zlib.compressobj(9, wbits=31)
    once = b"".join(packer.compress(b"\n" * 2**20) for _ in range(128)) + packer.flush()
    head = OK.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip, gzip\r\n\r\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for status in (b"200 OK", b"400 No"):
        with misbehaving(head.replace(b"200 OK", status) + gzip.compress(once)) as (url, _):
            broke = failure(Link(url, KEY, None, 5.0, 10.0, 2))
            assert broke.ours is (status == b"400 No")
            assert "packed with gzip, gzip" in broke.reason or broke.reason == "status 400"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 60_000  # KiB


def test_a_server_that_is_not_there() -> None:
    """Nobody listens; somebody does and never answers; TLS to what does not speak it sends nothing."""
    port = free_port()
    assert (
        "cannot be reached" in failure(Link(f"http://127.0.0.1:{port}/v1", None, None, 5.0, 10.0, 1)).reason
    )
    with socket.create_server(("127.0.0.1", port)):
        silent = Link(f"http://127.0.0.1:{port}/v1", None, None, 5.0, 1.0, 1)
        assert failure(silent).reason == "it does not answer"
        assert failure(silent, timeout_s=0.2).reason == "the deadline passed"
    with misbehaving(HALF) as (url, seen):
        assert failure(Link(url.replace("http:", "https:"), KEY, None, 5.0, 10.0, 1)).reason
        assert seen == []


def test_tls_is_verified(tmp_path: Path, large: dict[str, Any]) -> None:
    """A server whose certificate nobody vouches for gets no question; `ca` must be a file of certificates."""
    authority = Authority(tmp_path)
    pair = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with misbehaving(HALF, context) as (url, seen):
        assert "certificate" in failure(Link(url, KEY, None, 5.0, 10.0, 1)).reason
        assert seen == []
        assert failure(Link(url, KEY, authority.pem, 5.0, 10.0, 1)).reason == "the answer broke off"
    with pytest.raises(SettingsError, match=r"upstream\.ca"):
        Upstream(Link(large["url"], None, tmp_path / "ca.key", 5.0, 10.0, 1), print)


def test_a_server_that_falls_silent() -> None:
    """It takes no connection, or ends its answer in the middle without hanging up: each has its own limit."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for one in (first, second):  # the queue of a server that accepts nobody is full then (listen(2))
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        assert failure(Link(url, None, None, 0.5, 600.0, 1)).reason == "it does not answer"
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            held.append(server.accept()[0])
            held[0].sendall(HALF)

        talking = threading.Thread(target=talk, daemon=True)
        talking.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        assert failure(Link(url, None, None, 5.0, 0.5, 1)).reason == "it does not answer"
        talking.join()
        held[0].close()


NAMELESS = """
import queue, socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(3600)  # as where no name server is to be reached
from edged.adapters.upstream import Link, Upstream
from edged.core.upstream import Ask
events = queue.SimpleQueue()
server = Upstream(Link("http://gpu.example/v1", None, None, 0.5, 5.0, 1), events.put)
server.start()
server.ask(Ask(1, b"{}", 5.0))
print(events.get(timeout=30).reason)
server.ask(Ask(2, b"{}", 5.0))
print(server.stop(5.0))
"""


def test_a_name_that_nobody_finds() -> None:
    """The question is answered in time, and the process ends at once: its end waits for no name server."""
    told = subprocess.run(
        [sys.executable, "-c", NAMELESS], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.splitlines() == ["it does not answer", "True"]
    assert told.stderr == ""


def test_many_at_once() -> None:
    """As many as `jobs` says are under way, and none of them fails for want of a connection of ours."""
    many = 110
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0), backlog=many) as silent:
        silent.settimeout(10.0)
        server = Upstream(
            Link(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", None, None, 5.0, 30.0, many), events.put
        )
        server.start()
        for number in range(many + 5):
            server.ask(Ask(number, b"{}", 60.0))
        taken = [silent.accept()[0] for _ in range(many)]
        silent.settimeout(0.5)
        with pytest.raises(TimeoutError):
            silent.accept()
        assert events.empty()
        assert server.stop(5.0)
        for one in taken:
            one.close()


def test_over_tls_with_the_key_as_a_credential(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, tmp_path: Path
) -> None:
    """A server with a certificate of one's own authority, its key handed over by systemd: both ends are ours."""
    for folder in ("ca", "credentials"):
        (tmp_path / folder).mkdir()
    authority = Authority(tmp_path / "ca")
    pair = authority.server()
    (tmp_path / "credentials" / "upstream_key").write_text(f"{KEY}\n")
    (tmp_path / "http-key").write_text(KEY)
    port = free_port()
    larger: dict[str, dict[str, Any]] = {
        "node": {"id": "large"},
        "http": {"enabled": True, "port": port, "key_file": str(tmp_path / "http-key")},
        "http.tls": {"cert": str(pair.cert), "key": str(pair.key)},
    }
    daemon(broker, larger, scripted=True).start()
    url = f"https://localhost:{port}/v1"
    upstream: dict[str, Any] = {
        "url": url,
        "model": "scripted",
        "key_file": "upstream_key",
        "ca": str(authority.pem),
    }
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    board = daemon(broker, {"upstream": upstream}, scripted=True, environment=credentials).start()
    press = device(broker, "press", node=board.node)
    last = press.answer(press.ask("tokens=3", model="large")).check().last
    assert (last["text"], last["node"], last["attempt"]) == ("w0 w1 w2 ", board.node, 1)
    assert last["upstream"]
    board.terminate()
    assert KEY not in b"".join(board.raw).decode()


@pytest.mark.parametrize(
    ("status", "body", "ours"),
    [
        (500, COMPLAINT, True),
        (501, COMPLAINT, True),
        (400, b"", True),
        (500, b"Internal Server Error", False),
        (503, COMPLAINT, False),
        (401, COMPLAINT, False),
    ],
)
def test_a_server_that_does_no_schemas(status: int, body: bytes, ours: bool) -> None:  # noqa: FBT001 - a table
    """Some say 500 to a `response_format`, with an error in JSON: that says nothing of other questions."""
    with misbehaving(b"HTTP/1.1 %d No\r\n\r\n%b" % (status, body)) as (url, _):
        assert failure(Link(url, KEY, None, 5.0, 10.0, 2), shaped=True).ours is ours


@pytest.mark.parametrize(("connect_s", "cramped"), [(30.0, True), (0.1, False)])
def test_a_deadline_that_no_server_meets(connect_s: float, cramped: bool) -> None:  # noqa: FBT001 - a table
    """A question without time says nothing of the server: three of them must not take it from all others."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = Link(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", None, None, connect_s, 30.0, 4)
        broke = failure(link, timeout_s=1.0)
    assert (broke.reason, broke.ours, broke.cramped) == ("the deadline passed", False, cramped)


def failure(link: Link, timeout_s: float = 20.0, *, shaped: bool = False) -> Broke:
    """How a question to this server ends."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    server = Upstream(link, events.put)
    server.start()
    server.ask(Ask(1, b"{}", timeout_s, shaped))
    while not isinstance(event := events.get(timeout=30), Broke):
        assert not isinstance(event, Over | ThreadDied), event
    assert server.stop(5.0)
    return event


def test_a_restart(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]) -> None:
    """A question that ran there when the board was killed runs there again."""
    node = daemon(broker, {"upstream": large}, scripted=True).start()
    press = device(broker, "press")
    job = press.ask("tokens=60 step_ms=20", model="large")
    press.wait_reply(job, "delta")
    node.kill()
    node.start()
    last = press.answer(job).last
    assert last["text"] == "".join(f"w{n} " for n in range(60))
    assert last["upstream"]
    assert last["attempt"] == 2


def test_the_engine_breaks_meanwhile(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any]
) -> None:
    """What runs elsewhere goes on when the board's own engine crashes."""
    daemon(broker, {"upstream": large}, scripted=True).start()
    press = device(broker, "press")
    job = press.ask("tokens=100 step_ms=20", model="large")
    press.wait_reply(job, "delta")
    crash = press.ask("tokens=5 crash=SIGKILL")
    assert press.answer(crash).last["code"] == "poison"
    answer = press.answer(job).check()
    assert answer.last["attempt"] == 1
    assert len(answer.attempts) == 1


def test_a_hot_board(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any], tmp_path: Path
) -> None:
    """While it is hot its questions are answered elsewhere, also those that it would refuse."""
    root = boards.rk3588_mainline(tmp_path / "board")
    sections = {"upstream": large, "paths": {"sys": str(root / "sys"), "proc": str(root / "proc")}}
    node = daemon(broker, sections, scripted=True).start()
    press = device(broker, "press")
    assert "upstream" not in press.answer(press.ask("tokens=2")).check().last
    boards.set_temp_c(root, "bigcore0-thermal", 84.2)
    node.wait_health(lambda h: h["level"] == "hot")
    assert press.answer(press.ask("tokens=2")).check().last["upstream"]
    boards.set_temp_c(root, "bigcore0-thermal", 112.0)
    node.wait_health(lambda h: h["level"] == "critical")
    assert press.answer(press.ask("tokens=2")).check().last["upstream"]


def test_a_server_that_passes_the_schema_over(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice
) -> None:
    """Prose is no answer to a question for JSON: it counts as failed there, and is never a `done`."""
    with misbehaving(OK + PROSE) as (url, seen):
        node = daemon(broker, {"upstream": {"url": url, "model": "big"}}, scripted=True).start()
        press = device(broker, "press")
        asked = press.answer(press.ask("x", model="large", response_format={"type": "json_object"}))
        assert len(seen) == 1
        assert asked.last["code"] == "unsupported"  # the scripted engine of the board has no schemas
        assert "not the JSON" in node.wait_log("upstream_failed")["reason"]
        told = node.wait_health(lambda h: h["upstream"]["failed"] == 1)["upstream"]
        assert (told["state"], told["done"]) == ("closed", 0)


def test_a_server_that_gets_schemas_wrong(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice) -> None:
    """Three times in a row, then it is spared such questions, and asked all others as before."""
    with misbehaving(OK + PROSE.replace(b"It is hot.", b"151")) as (url, seen):
        node = daemon(broker, {"upstream": {"url": url, "model": "big"}}, scripted=True).start()
        press = device(broker, "press")
        for number in range(5):
            asked = press.answer(press.ask("x", model="large", response_format=SHAPED))
            assert asked.last["code"] == "unsupported"  # by the scripted engine of the board
            assert len(seen) == min(3, number + 1)
        assert "breaks the schema" in node.wait_log("upstream_failed")["reason"]
        assert press.answer(press.ask("x", model="large")).check().text == "151"
        told = node.wait_health(lambda h: h["upstream"]["done"] == 1)["upstream"]
        assert (told["state"], told["shapes"], told["failed"]) == ("closed", "open", 3)


def test_a_larger_server_keeps_to_a_schema(daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice) -> None:
    """An answer that follows it is the question's, with its value; a schema that cannot be checked stays here."""
    with misbehaving(OK + PROSE.replace(b"It is hot.", b"85")) as (url, seen):
        daemon(broker, {"upstream": {"url": url, "model": "big"}}, scripted=True).start()
        press = device(broker, "press")
        asked = press.answer(press.ask("x", model="large", response_format=SHAPED)).check()
        assert (asked.last["parsed"], asked.last["upstream"]) == (85, url.split("/")[2])
        looping: dict[str, Any] = {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}
        assert press.answer(press.ask("x", model="large", response_format=looping)).last["type"] == "error"
        assert len(seen) == 1


def test_a_hot_board_stays_in_its_pools(
    daemon: MakeDaemon, broker: Mosquitto, device: MakeDevice, large: dict[str, Any], tmp_path: Path
) -> None:
    """While the larger server answers for it; once that server fails it leaves them, as any hot board does."""
    root = boards.rk3588_mainline(tmp_path / "board")
    (tmp_path / "key").write_text(KEY)
    port = free_port()
    away: dict[str, dict[str, Any]] = {
        "node": {"id": "far"},
        "http": {"enabled": True, "port": port, "key_file": str(tmp_path / "key")},
    }
    far = daemon(broker, away, scripted=True).start()
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    sections: dict[str, dict[str, Any]] = {
        "node": {"id": "near", "pools": ["hall"]},
        "upstream": {**large, "url": f"http://127.0.0.1:{port}/v1"},
        "paths": paths,
    }
    node = daemon(broker, sections, scripted=True).start()
    node.wait_event("pools_joined")
    boards.set_temp_c(root, "bigcore0-thermal", 84.2)
    node.wait_health(lambda h: h["level"] == "hot")
    press = device(broker, "press", node="near")
    press.ask_topic = "edged/v1/pool/hall/ask/press"
    assert press.answer(press.ask("tokens=2")).check().last["upstream"]
    assert node.wait_health(lambda h: h["upstream"]["done"] == 1)["membership"]["in"] == ["hall"]
    assert far.terminate() == 0
    press.ask_topic = "edged/v1/node/near/ask/press"
    for _ in range(3):
        press.answer(press.ask("tokens=2"))
    assert node.wait_event("pools_left")["reasons"] == ["hot"]
    told = node.wait_health(lambda h: h["upstream"]["state"] == "open")
    assert "cannot be reached" in told["upstream"]["reason"]
