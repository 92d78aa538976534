"""Refusals under way when the connection ends: each device hears of its question all the same."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Mosquitto
from daemon_process import MakeDaemon

from edged.core.ration import EACH

QUESTIONS = 40
"""More than may be under way at once: half of the refusals wait for acknowledgements that do not come."""
LAST = "last"
CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ = 1, 3, 8, 10, 12


def packets(line: socket.socket, *, session_present: bool) -> Iterator[tuple[int, bytes]]:
    """First byte and body of what a node sends; all but PUBLISH is answered as a broker would."""
    line.settimeout(20)
    while True:
        head, size, shift, byte = line.recv(1)[0], 0, 0, 0x80
        while byte & 0x80:
            byte = line.recv(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
        body = line.recv(size, socket.MSG_WAITALL) if size else b""
        if head >> 4 == CONNECT:
            line.sendall(bytes([0x20, 3, session_present, 0, 0]))
        elif head >> 4 in {SUBSCRIBE, UNSUBSCRIBE}:
            line.sendall(bytes([0x90 if head >> 4 == SUBSCRIBE else 0xB0, 4, *body[:2], 0, 0]))
        elif head >> 4 == PINGREQ:
            line.sendall(b"\xd0\0")
        yield head, body


def question(name: str, qos: int, mid: int) -> bytes:
    """A PUBLISH of a question that is refused."""
    topic, payload = b"edged/v1/node/n1/ask/c1", json.dumps({"id": name, "prompt": 7}).encode()
    body = len(topic).to_bytes(2) + topic + (mid.to_bytes(2) if qos else b"") + b"\0" + payload
    return bytes([0x30 | qos << 1, len(body)]) + body


@pytest.mark.parametrize(("qos", "session_present"), [(1, False), (0, True)])
def test_refused_when_the_connection_ends(
    daemon: MakeDaemon,
    tmp_path: Path,
    qos: int,
    session_present: bool,  # noqa: FBT001 - a table
) -> None:
    """The broker has forgotten the questions, or never kept them: the next connection has their refusals."""
    names = {f"b{number}" for number in range(QUESTIONS)}
    broker = Mosquitto(
        tmp_path
    )  # one that never starts: here is another, which acknowledges nothing at first
    told: set[str] = set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker.port = server.getsockname()[1]
        node = daemon(broker, {"log": {"level": "debug"}}, scripted=True).launch()
        with server.accept()[0] as line:
            for head, body in packets(line, session_present=False):
                if head >> 4 == SUBSCRIBE and b"/ask/" in body:
                    break
            for number, name in enumerate(sorted(names)):
                line.sendall(question(name, qos, number + 1))
            node.wait_log("question_refused", lambda _: len(node.log("question_refused")) == QUESTIONS)
        with server.accept()[0] as line:
            for head, body in packets(line, session_present=session_present):
                if head >> 4 == SUBSCRIBE and b"/ask/" in body:
                    line.sendall(question(LAST, 1, QUESTIONS + 1))
                if head >> 4 != PUBLISH:
                    continue
                at = 2 + int.from_bytes(body[:2])
                if head & 0x06:
                    line.sendall(b"\x40\x02" + body[at : at + 2])
                if b"/client/c1/answer/" in body[:at]:
                    told.add(body[2:at].decode().rpartition("/")[2])
                if LAST in told:
                    break
    assert told == {*names, LAST}
    said = [line for line in node.log("question_refused") if line["severity"] == "info"]
    assert EACH <= len(said) < QUESTIONS, "one device fills the log"
