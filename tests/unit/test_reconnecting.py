"""How long the connection waits, between two tries and for its broker; what is said of one that cuts it again."""

from __future__ import annotations

import os
import queue
import resource
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_broker import CONNACK, DISCONNECT, GRANTED, PUBLISH, SUBSCRIBE, fake, puback, suback
from structlog.testing import capture_logs

from edged.adapters.mqtt import Link, Mqtt
from edged.adapters.mqtt.connection import CUTS_OFF
from edged.adapters.mqtt.opening import TIMEOUT_S
from edged.adapters.mqtt.probe import Asked, probe
from edged.adapters.mqtt.tries import (
    CUT_RETRY_MAX_S,
    CUTS,
    GIVE_UP_CUTS,
    RETRY_MAX_S,
    SAY_AGAIN,
    TOLD_EACH,
    Tries,
    longest_wait_s,
)
from edged.core.checks import broker as broker_checks
from edged.core.link import (
    STEADY_S,
    Connected,
    Delivered,
    Disconnected,
    LinkEvent,
    Outgoing,
    Subscribed,
)


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, RETRY_MAX_S), (1024, RETRY_MAX_S), (10**6, RETRY_MAX_S)],
)
def test_longest_wait(failures: int, wait_s: float) -> None:
    """It doubles up to its bound, and stays there for as long as the broker is away: an hour, a year."""
    assert longest_wait_s(failures) == wait_s


@pytest.mark.parametrize(
    ("cuts", "wait_s"),
    [
        (CUTS, RETRY_MAX_S),
        (CUTS + 1, 8.0),
        (CUTS + 2, 16.0),
        (CUTS + 9, CUT_RETRY_MAX_S),
        (10**6, CUT_RETRY_MAX_S),
    ],
)
def test_longest_wait_for_a_broker_that_cuts(cuts: int, wait_s: float) -> None:
    """Somebody has to change an ACL first: a node that came back every four seconds would fill both logs."""
    assert longest_wait_s(99, cuts) == wait_s


def test_two_nodes_of_one_name_do_not_fill_the_log() -> None:
    """They push each other off for as long as nobody looks; a connection that lasts begins the count anew."""
    now, events = [0.0], list[LinkEvent]()
    tries = Tries(
        Link("127.0.0.1", 1, "n", 60, 60, 9, 9999, "will", b"", ("ask/+",)), events.append, lambda: now[0]
    )

    def live(seconds: float) -> Disconnected:
        tries.begin()
        tries.succeeded()
        now[0] += seconds
        tries.lost("Unspecified error")
        lost = events.pop()
        assert isinstance(lost, Disconnected)
        return lost

    ends = [live(STEADY_S / 2) for _ in range(2 * SAY_AGAIN)]
    told = [number for number, end in enumerate(ends, start=1) if not end.quiet]
    assert told[:TOLD_EACH] == list(range(1, TOLD_EACH + 1))
    assert told[TOLD_EACH:] == [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, SAY_AGAIN, 2 * SAY_AGAIN]
    assert "16384 times in a row: does another daemon use this node.id" in ends[SAY_AGAIN - 1].reason
    assert tries.doubtful
    assert not live(STEADY_S).quiet
    assert not tries.doubtful


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [(SUBSCRIBE, "subscribing to ask/+"), (PUBLISH, "publishing to info")],
)
def test_a_broker_that_cuts_who_may_not_use_a_topic(forbidden: int, told: str) -> None:
    """There is no reason code; the log names what it has not answered."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == forbidden:
            return None
        return suback(body, GRANTED) if kind == SUBSCRIBE else b""

    with fake(CONNACK, answer) as port:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ("ask/+",)), events.put)
        mqtt.start()
        reason = ""
        while "soon after connecting" not in reason:
            match events.get(timeout=60):
                case Connected():
                    mqtt.publish(Outgoing("info", b"{}", qos=1, retain=True))
                case Disconnected(reason):
                    pass
        forbidden = 0  # from now on all is allowed, so that it ends in order
        while not isinstance(events.get(timeout=60), Subscribed):
            pass
        assert mqtt.stop(10)
    assert told in reason


def test_what_many_cut_connections_have_in_common() -> None:
    """That alone, and only while they follow each other: a broker that dies cuts off now this, now that."""
    now = [0.0]
    tries = Tries(Link("127.0.0.1", 1, "n", 60, 60, 9, 9999, "will", b"", ()), lambda _: None, lambda: now[0])

    def live(seconds: float, *unanswered: str) -> str | None:
        tries.succeeded()
        now[0] += seconds
        tries.lost("gone", unanswered)
        return tries.culprit

    assert [live(0.1, "a", "b") for _ in range(GIVE_UP_CUTS)] == [None] * GIVE_UP_CUTS, "either may be it"
    assert live(0.1, "b", "c") == "b"
    tries.relieved()
    assert [live(0.1, "a") for _ in range(GIVE_UP_CUTS - 1)] == [None] * (GIVE_UP_CUTS - 1)
    assert live(STEADY_S, "a") is None
    assert [live(0.1, "a" if n % 2 else "b") for n in range(4 * GIVE_UP_CUTS)] == [None] * 4 * GIVE_UP_CUTS


class Hasty(Tries):
    """Waits for nothing."""

    def wait_s(self) -> float:
        """None."""
        return 0.01


def serve_batches(server: socket.socket, came: list[list[bytes]]) -> None:  # noqa: C901 - packet by packet
    """A broker that takes all that is there, and at `bad` hangs up without a word on what came with it."""
    while True:
        with server.accept()[0] as line:
            line.settimeout(0.1)
            held, alive = b"", True
            while alive:
                try:
                    some = line.recv(65536)
                    held += some
                    alive = bool(some)
                    continue
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    return  # it has ended without reading our last word
                words, batch = b"", []
                while held:
                    kind, body, held = held[0] >> 4, held[2 : 2 + held[1]], held[2 + held[1] :]
                    match kind:
                        case 1:
                            words += CONNACK
                        case 8:
                            words += suback(body, GRANTED)
                        case 3:
                            batch.append(body[2 : 2 + int.from_bytes(body[:2])])
                            words += puback(body)
                came += [batch] if batch else []
                if b"bad" in batch:
                    break
                line.sendall(words)
            if not alive and held[-2:] == bytes([DISCONNECT << 4, 0]):
                return


@pytest.mark.parametrize("token", ["an answer", None])
def test_a_message_that_the_broker_cuts_at(token: str | None) -> None:
    """It is given up, and no other: rumqttd ends the connection at what is too long for it, and says no limit."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    came: list[list[bytes]] = []
    topics = ("first", "bad", "last")
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = threading.Thread(target=serve_batches, args=(server, came), daemon=True)
        broker.start()
        link = Link("127.0.0.1", server.getsockname()[1], "n", 60, 60, 9, 9999, "will", b"", ("ask/+",))
        mqtt = Mqtt(link, events.put)
        mqtt._tries = Hasty(link, events.put)  # noqa: SLF001 - a minute less
        mqtt.start()
        while not isinstance(events.get(timeout=60), Connected):
            pass
        for topic in topics:
            mqtt.publish(Outgoing(topic, b"{}", qos=1, token=token and topic))
        delivered: dict[object, str | None] = {}
        while [b"last"] not in came or (token and len(delivered) < len(topics)):
            try:
                event = events.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(event, Delivered):
                delivered[event.token] = event.refused
        assert mqtt.stop(10)
        broker.join(10)
        assert not broker.is_alive()
    assert came[:2] == [[b"first", b"bad", b"last"]] * 2
    assert came[-4:] == [[b"bad"], [b"bad"], [b"bad"], [b"last"]]
    if token:
        assert delivered == {"first": None, "bad": CUTS_OFF, "last": None}


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (None, "the broker closed the connection without a reason"),
        (bytes([DISCONNECT << 4, 1, 0x80]), "Unspecified error"),
        (bytes([DISCONNECT << 4, 1, 0x8B]), "Server shutting down"),
    ],
)
def test_the_reason_of_an_end(end: bytes | None, told: str) -> None:
    """Of a connection that just ended, as when its broker is stopped, paho says what a broker may say itself."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    ends = [end]

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == SUBSCRIBE:
            return ends.pop() if ends else suback(body, GRANTED)
        return b""

    with fake(CONNACK, answer) as port:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ("ask/+",)), events.put)
        mqtt.start()
        told_of = []
        while not isinstance(event := events.get(timeout=60), Subscribed):
            told_of += [event.reason] if isinstance(event, Disconnected) else []
        assert mqtt.stop(10)
    assert told_of == [told]


def test_a_broker_that_keeps_the_session_for_less() -> None:
    """As cloud brokers do, in its CONNACK: what was asked of a node that was away for longer was gone, unsaid."""
    hour = bytes([0x20, 8, 0, 0, 5, 0x11]) + (3600).to_bytes(4)
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    ends: list[None] = [None]

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == SUBSCRIBE:
            return ends.pop() if ends else suback(body, GRANTED)
        return b""

    with fake(hour, answer) as port, capture_logs() as lines:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 7200, 9, 9999, "will", b"", ("ask/+",)), events.put)
        mqtt.start()
        while not isinstance(events.get(timeout=60), Subscribed):
            pass
        assert mqtt.stop(10)
    [told] = [str(line["reason"]) for line in lines if line["event"] == "session_shortened"]
    assert "for 3600 s only; raise its limit" in told
    for wanted_s, state in ((3600, "ok"), (3601, "warning")):
        with fake(hour, answer) as port:
            found = broker_checks.broker(
                "b", probe(Asked("127.0.0.1", port, "n", wanted_s), log_in=True), "b"
            )
        assert found.state == state, found


def test_the_end_of_one_that_is_being_opened() -> None:
    """A machine that answers nothing: no last will is to be spared there, so the opening is not waited for."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, socket.create_connection(full.getsockname()):
        port = full.getsockname()[1]
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ()), lambda _: None)
        begun = time.monotonic()
        mqtt.start()
        while mqtt.beat < begun:
            time.sleep(0.01)
        assert not mqtt.stop(0.1)
        assert time.monotonic() - begun < TIMEOUT_S / 2
    assert mqtt.stop(2 * TIMEOUT_S)


def test_a_connection_beyond_the_1024th_file() -> None:
    """It rests between messages as any other: select(2) takes no such file, and the thread went round at once."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with fake(CONNACK, lambda kind, body: suback(body, GRANTED) if kind == SUBSCRIBE else b"") as port:
        mqtt = Mqtt(Link("127.0.0.1", port, "n", 60, 60, 9, 9999, "will", b"", ("ask/+",)), events.put)
        with ExitStack() as held:
            for _ in range(1024):
                held.enter_context(Path(os.devnull).open("rb"))
            mqtt.start()
            while not isinstance(events.get(timeout=60), Subscribed):
                pass
            beats = set()
            for _ in range(50):
                time.sleep(0.02)
                beats.add(mqtt.beat)
            assert mqtt.stop(10)
    assert len(beats) < 10
