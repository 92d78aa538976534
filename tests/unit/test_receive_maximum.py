"""A broker's Receive Maximum and Maximum Packet Size (MQTT 5, 3.2.2.3), held to after a reconnection too.

paho does not look at them. Mosquitto does not enforce the first for QoS 1, other brokers cut the connection. So
here is one that counts.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from edged.adapters.mqtt import Link, Mqtt
from edged.adapters.mqtt.connection import FLOODED, UNACKNOWLEDGED
from edged.adapters.mqtt.flood import MANY
from edged.adapters.mqtt.sending import WAITING_MAX
from edged.core.link import Connected, Delivered, Disconnected, LinkEvent, Outgoing, Undelivered

MAXIMUM, MESSAGES = 3, 10
CONNECT, PUBLISH, PINGREQ, DISCONNECT = 1, 3, 12, 14
IDENTIFIERS = 65_535
WAIT_S = 60
"""For what must come; a busy machine takes its time."""
CONNECTIONS = 20
"""How often a machine may stand still."""
PLAIN = bytes([0x20, 3, 0, 0, 0])
"""CONNACK of a broker that names no limits."""
COUNTS = bytes([0x20, 6, 0, 0, 3, 0x21, 0, MAXIMUM])
SMALL = bytes([0x20, 8, 1, 0, 5, 0x27, 0, 0, 0, 100])
"""Of one that has kept the session, and takes packets of 100 bytes."""


def read(line: socket.socket) -> tuple[int, bytes]:
    """The next packet: its first byte, and what follows its length (below 16 KiB)."""
    head, length = exactly(line, 2)
    if length & 0x80:
        length = (length & 0x7F) | exactly(line, 1)[0] << 7
    return head, exactly(line, length)


def exactly(line: socket.socket, count: int) -> bytes:
    """So many bytes, however they come: a socket with a timeout passes over MSG_WAITALL."""
    got = b""
    while len(got) < count:
        some = line.recv(count - len(got))
        if not some:
            raise ConnectionError
        got += some
    return got


def arrivals(line: socket.socket, quiet_s: float, *, least: int = 0) -> list[int]:
    """Packet identifiers of the messages that come until it is quiet, and there are at least so many."""
    found: list[int] = []
    try:
        while True:
            line.settimeout(quiet_s if len(found) >= least else WAIT_S)
            head, body = read(line)
            if head >> 4 == PUBLISH and head & 6:
                at = 2 + int.from_bytes(body[:2])
                found.append(int.from_bytes(body[at : at + 2]))
    except TimeoutError:
        return found
    finally:
        line.settimeout(WAIT_S)


@contextmanager
def connection(server: socket.socket, connack: bytes) -> Iterator[socket.socket]:
    """A client that was taken in."""
    line, _ = server.accept()
    with line:
        line.settimeout(WAIT_S)
        head, _ = read(line)
        assert head >> 4 == CONNECT
        line.sendall(connack)
        yield line


@contextmanager
def client(
    server: socket.socket, keepalive_s: int = 60
) -> Iterator[tuple[Mqtt, queue.SimpleQueue[LinkEvent]]]:
    """The node's side of it."""
    told: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link("127.0.0.1", server.getsockname()[1], "n", keepalive_s, 60, 9, 9999, "will", b"", ())
    mqtt = Mqtt(link, told.put)
    mqtt.start()
    try:
        yield mqtt, told
    finally:
        mqtt.stop(0.1)


def until_connected(told: queue.SimpleQueue[LinkEvent]) -> list[LinkEvent]:
    """What is told before the next connection."""
    heard: list[LinkEvent] = []
    while not isinstance(event := told.get(timeout=WAIT_S), Connected):
        heard.append(event)
    return heard


def test_no_more_is_under_way_than_the_broker_takes() -> None:
    """Ten messages with a token, all at once: three at a time, in their order, and each arrives."""
    told: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = Link("127.0.0.1", server.getsockname()[1], "n", 60, 60, 9, 9999, "will", b"", ())
        mqtt = Mqtt(link, told.put)
        mqtt.start()
        with connection(server, COUNTS) as line:
            assert isinstance(told.get(timeout=WAIT_S), Connected)
            for number in range(MESSAGES):
                mqtt.publish(Outgoing("t", b"x", qos=1, token=number))
            assert len(arrivals(line, 0.5, least=MAXIMUM)) == MAXIMUM
        back: list[object] = []
        with connection(
            server, COUNTS
        ) as line:  # what was under way comes again by itself, the rest came back to us
            while not isinstance(event := told.get(timeout=WAIT_S), Connected):
                back += [event.token] if isinstance(event, Undelivered) else []
            for token in back:
                mqtt.publish(Outgoing("t", b"x", qos=1, token=token))
            got = 0
            while got < MESSAGES:
                some = arrivals(line, 0.5, least=1)
                assert 0 < len(some) <= MAXIMUM
                got += len(some)
                for mid in some:
                    line.sendall(b"\x40\x02" + mid.to_bytes(2))
            delivered = [told.get(timeout=WAIT_S) for _ in range(MESSAGES)]
            assert delivered == [Delivered(number) for number in range(MESSAGES)]
            assert mqtt.stop(5.0)


def test_a_new_connection_that_takes_fewer() -> None:
    """What is under way when a connection ends comes again, by as many as the next one takes."""
    with socket.create_server(("127.0.0.1", 0)) as server, client(server) as (mqtt, told):
        with connection(server, PLAIN) as line:
            until_connected(told)
            for number in range(MESSAGES):
                mqtt.publish(Outgoing("t", b"x", qos=1, token=number))
            first = arrivals(line, 0.5, least=MESSAGES)
            assert len(first) == MESSAGES
        with connection(server, COUNTS) as line:
            until_connected(told)
            again: list[int] = []
            while len(again) < MESSAGES:
                some = arrivals(line, 0.5, least=1)
                assert 0 < len(some) <= MAXIMUM
                again += some
                for mid in some:
                    line.sendall(b"\x40\x02" + mid.to_bytes(2))
            assert again == first
            assert [told.get(timeout=WAIT_S) for _ in first] == [
                Delivered(number) for number in range(MESSAGES)
            ]


def test_a_new_connection_that_takes_less() -> None:
    """What is larger than the next connection takes is not sent again, and told of; the rest is."""
    with socket.create_server(("127.0.0.1", 0)) as server, client(server) as (mqtt, told):
        with connection(server, PLAIN) as line:
            until_connected(told)
            mqtt.publish(Outgoing("t", b"x" * 101, qos=1, token=1))
            mqtt.publish(Outgoing("t", b"x", qos=1, token=2))
            _, small = arrivals(line, 0.5, least=2)
        with connection(server, SMALL) as line:
            heard = until_connected(told)
            assert arrivals(line, 0.5, least=1) == [small]
        refused = "larger than the broker's limit of 100 bytes a packet"
        assert heard[1:] == [Delivered(1, refused=refused)]


def until_given_up(
    server: socket.socket,
    told: queue.SimpleQueue[LinkEvent],
    begin: Callable[[socket.socket], None],
) -> tuple[list[int], str]:
    """Be a broker that answers pings and nothing else, until the client itself ends a connection.

    Where the machine stands still for a second, a connection ends for want of a ping: then the client comes again.

    Args:
        server: the broker's side.
        told: the client's.
        begin: called with each connection.

    Returns:
        First bytes of what came on that connection, and why it ended as the client tells it.
    """
    heads: list[int] = []
    for _ in range(CONNECTIONS):
        with connection(server, PLAIN) as line, suppress(ConnectionError):
            until_connected(told)
            begin(line)
            heads.clear()
            end = time.monotonic() + 2 * WAIT_S
            while not heads or heads[-1] >> 4 != DISCONNECT:
                assert time.monotonic() < end, "it never gives up"
                heads.append(read(line)[0])
                if heads[-1] >> 4 == PINGREQ:
                    line.sendall(b"\xd0\x00")
        if heads and heads[-1] >> 4 == DISCONNECT:
            break
    while not isinstance(event := told.get(timeout=WAIT_S), Disconnected):
        pass
    return heads, event.reason


def test_an_acknowledgement_that_never_comes() -> None:
    """A broker that lives and has lost one: all is sent again on a new connection, and nothing waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server, client(server, keepalive_s=1) as (mqtt, told):
        messages = [Outgoing("t", b"x", qos=1, token=1)]

        def publish(_line: socket.socket) -> None:
            while messages:  # once: it comes again by itself
                mqtt.publish(messages.pop())

        heads, reason = until_given_up(server, told, publish)
        assert (heads[0] >> 4, heads.count(heads[0])) == (PUBLISH, 1)
        assert reason.startswith(UNACKNOWLEDGED)
        with connection(server, PLAIN) as line:
            until_connected(told)
            (again,) = arrivals(line, 0.5, least=1)
            line.sendall(b"\x40\x02" + again.to_bytes(2))
            assert told.get(timeout=WAIT_S) == Delivered(1)


def test_what_a_flood_kept_the_broker_from_handing_over() -> None:
    """Mosquitto drops a question of QoS 1 then and sends it again on a new connection only: there is one."""
    flood = b"\x30\x05\x00\x01t\x00x" * MANY
    with socket.create_server(("127.0.0.1", 0)) as server, client(server, keepalive_s=1) as (_, told):
        _, reason = until_given_up(server, told, lambda line: line.sendall(flood))
        assert reason.startswith(FLOODED)
        with connection(server, PLAIN):
            until_connected(told)


def test_identifiers_come_round() -> None:
    """A packet identifier under way is given to no other message: its acknowledgement could be told too early."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        client(server) as (mqtt, told),
        connection(server, PLAIN) as line,
    ):
        until_connected(told)
        for token in range(2):
            mqtt.publish(Outgoing("t", b"x", qos=1, token=token))
        under_way = arrivals(line, 0.5, least=2)
        left = IDENTIFIERS - len(under_way)
        while left:
            some = min(left, WAITING_MAX)
            for _ in range(some):
                mqtt.publish(Outgoing("t", b"x"))
            for _ in range(some):
                read(line)  # a machine under load may pause in between
            left -= some
        mqtt.publish(Outgoing("t", b"alone"))  # the written packet tells paho that it is delivered
        read(line)
        mqtt.publish(Outgoing("t", b"x", qos=1, token=2))
        (third,) = arrivals(line, 0.5, least=1)
        assert third not in under_way
        assert told.empty()
