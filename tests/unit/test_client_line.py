"""The client's line: what it makes of a broker that is slow, refuses, takes few, or hands it another's session."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Mosquitto
from certificates import Authority
from device import Listener, hear, leave
from fake_broker import CONNACK, DISCONNECT, GRANTED, PUBLISH, SUBSCRIBE, fake, puback, suback
from faults.proxy import Proxy

from edged import mqtt5
from edged.client import AnswerTimeoutError, Client, ClientError, Failed, UnreachableError
from edged.client.cuts import CUTS_OFF, GIVE_UP_CUTS, WARY_CUTS
from edged.client.gaps import MISSED, MISSING, Gaps
from edged.client.line import LAST_WORDS_S
from edged.client.watcher import SETTLE_S
from edged.core.link import STEADY_S

MAXIMUM, QUESTIONS = 3, 10
COUNTS = bytes([0x20, 6, 0, 0, 3, 0x21, 0, MAXIMUM])
"""Of a broker that takes so many messages at once."""
NOT_AUTHORIZED = 0x87
BUSY = b'{"type":"error","id":"","seq":0,"code":"busy","message":""}'
ONLINE = b"\x31\x23\x00\x1aedged/v1/node/attic/status\x00online"
"""Retained, as brokers hand it on after a subscription."""


def test_what_is_kept_comes_late_on_a_slow_line() -> None:
    """A broker behind a radio link: its answer is waited for, and only then silence means that there is no more."""

    def answer(kind: int, body: bytes) -> bytes:
        if kind != SUBSCRIBE:
            return b""
        if b"/status" not in body:
            return suback(body, GRANTED)
        time.sleep(2 * SETTLE_S)
        return suback(body, GRANTED) + ONLINE

    with fake(CONNACK, answer) as port, Client(port=port) as client:
        assert client.nodes() == {"attic": "online"}


@pytest.mark.parametrize(("tls", "mend"), [(False, "--cafile"), (True, "--cert, --key")])
def test_a_broker_that_hangs_up_is_not_called_silent(tmp_path: Path, tls: bool, mend: str) -> None:  # noqa: FBT001
    """A port for TLS asked without it, or one that wants a certificate: told at once, with what to change."""
    theirs = ours = None
    if tls:
        authority = Authority(tmp_path)
        pair = authority.server()
        theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        theirs.load_cert_chain(pair.cert, pair.key)
        ours = ssl.create_default_context(cafile=authority.pem)

    def hang_up(server: socket.socket) -> None:
        line = server.accept()[0]
        with line if theirs is None else theirs.wrap_socket(line, server_side=True) as heard:
            heard.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        thread = threading.Thread(target=hang_up, args=(server,), daemon=True)
        thread.start()
        client = Client(port=server.getsockname()[1], tls=ours)
        with pytest.raises(UnreachableError, match=f"ended the connection without an answer; .*{mend}"):
            client.connect()
        thread.join(30)


def test_a_broker_without_qos_1(tmp_path: Path) -> None:
    """No node can be there: a question waited for 20 s, and `edged nodes` told to start a node."""
    lacking = Mosquitto(tmp_path, "max_qos 0\n").start()
    try:
        with pytest.raises(ClientError, match=r"QoS 1.*\(Mosquitto: max_qos\)"):
            Client(lacking.host, lacking.port).connect()
    finally:
        lacking.kill()


def test_a_host_name_with_a_dot_too_many() -> None:
    """Python's words for it were of a codec."""
    with pytest.raises(ClientError, match="the host name cannot be resolved; correct the host"):
        Client("broker..lan").connect()


def test_a_refused_subscription_is_told() -> None:
    """Whoever can hear no answer is told at once, and so is who can hear nothing of nodes and events."""

    def answer(kind: int, body: bytes) -> bytes:
        return suback(body, NOT_AUTHORIZED) if kind == SUBSCRIBE else b""

    with fake(CONNACK, answer) as port, Client(port=port, node="attic", name="c1") as client:
        with pytest.raises(
            ClientError, match=r"hand on edged/v1/client/c1/answer/\+: Not authorized; see its ACL"
        ):
            client.ask("Is 31 C warm?", timeout_s=300).text()
        with pytest.raises(ClientError, match=r"hand on edged/v1/node/\+/status: Not authorized"):
            client.nodes()
        with pytest.raises(ClientError, match=r"hand on edged/v1/node/\+/event: Not authorized"):
            next(client.events())


def test_no_more_questions_at_once_than_the_broker_takes() -> None:
    """By itself paho does not look at Receive Maximum (MQTT 5, 3.2.2.3.3); brokers may cut who passes it.

    Here the first connection ends with all that it takes under way: these are sent again.
    """
    under_way: list[bytes] = []
    most = 0
    cut = False
    came = threading.Semaphore(0)

    def answer(kind: int, body: bytes) -> bytes | None:
        nonlocal most, cut
        if kind != PUBLISH:
            return suback(body, GRANTED) if kind == SUBSCRIBE else b""
        at = 2 + int.from_bytes(body[:2])
        under_way.append(body[at : at + 2])
        most = max(most, len(under_way))
        came.release()
        if len(under_way) < MAXIMUM:
            return b""
        acknowledged, under_way[:] = list(under_way), []
        if not cut:
            cut = True
            return None
        return b"".join(b"\x40\x02" + mid for mid in acknowledged)

    with fake(COUNTS, answer) as port, Client(port=port, node="attic") as client:
        for number in range(QUESTIONS):
            client.ask(
                "Is 31 C warm?", job_id=f"q{number}"
            )  # kept: nothing is sent when the client is closed
        for _ in range(MAXIMUM + QUESTIONS - 2):  # two of them may wait for a third
            assert came.acquire(timeout=30)
    assert most == MAXIMUM


def busy(body: bytes) -> bytes:
    """The words on a question: that it came, and what its node says to it."""
    name = asked(body).encode()
    topic = b"edged/v1/client/c1/answer/" + name
    packet = len(topic).to_bytes(2) + topic + b"\0" + BUSY
    return puback(body) + bytes([PUBLISH << 4, len(packet)]) + packet


def asked(body: bytes) -> str:
    """The name of the question in a PUBLISH."""
    return str(re.findall(rb'"id":"(\w+)"', body)[0], "ascii")


def test_a_question_that_the_broker_cuts_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up with words, and no other: it was sent again until its time was over, and all others with it.

    What came with it is not acknowledged either, as with rumqttd, which names no limit.
    """
    monkeypatch.setattr("edged.client.line.RETRY_MIN_S", 0.01)
    came: list[list[str]] = []
    most: list[int] = []
    fit = mqtt5.Client.fit

    def noted(client: mqtt5.Client, at_once: int, size: int) -> list[int]:
        most.append(at_once)
        return fit(client, at_once, size)

    monkeypatch.setattr(mqtt5.Client, "fit", noted)

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == SUBSCRIBE:
            came.append([])
            return suback(body, GRANTED)
        if kind != PUBLISH:
            return b""
        name = asked(body)
        came[-1].append(name)
        if name == "bad":
            return None
        return b"" if len(came) <= WARY_CUTS else busy(body)

    with fake(CONNACK, answer) as port, Client(port=port, node="attic", name="c1") as client:
        first, bad, last = (
            client.ask("Is 31 C warm?", job_id=name, timeout_s=30) for name in ("first", "bad", "last")
        )
        with pytest.raises(ClientError, match=f"the broker refused the question: {CUTS_OFF}; see its ACL"):
            bad.text()
        assert [isinstance(reply, Failed) for one in (first, last) for reply in one] == [True, True]
        cut = [names for names in came if "bad" in names]
    assert len(cut) == WARY_CUTS + GIVE_UP_CUTS
    assert cut[: WARY_CUTS + 1] == [["first", "bad"]] * (WARY_CUTS + 1)
    assert cut == came[: len(cut)]
    assert most[: WARY_CUTS + 1] == [mqtt5.MOST] * WARY_CUTS + [1]


@pytest.mark.parametrize(("cuts", "steady_s"), [(GIVE_UP_CUTS - 1, STEADY_S), (2 * GIVE_UP_CUTS, 0.0)])
def test_a_broker_that_cuts_off_now_this_now_that(
    monkeypatch: pytest.MonkeyPatch, cuts: int, steady_s: float
) -> None:
    """It may be dying, or the link be bad: what is cut less often, or after a while each time, is not given up."""
    monkeypatch.setattr("edged.client.line.RETRY_MIN_S", 0.01)
    monkeypatch.setattr("edged.client.line.STEADY_S", steady_s)
    came: Counter[str] = Counter()

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind != PUBLISH:
            return suback(body, GRANTED) if kind == SUBSCRIBE else b""
        came[asked(body)] += 1
        return busy(body) if came[asked(body)] > cuts else None

    with fake(CONNACK, answer) as port, Client(port=port, node="attic", name="c1") as client:
        answers = [client.ask("Is 31 C warm?", job_id=name, timeout_s=30) for name in ("first", "last")]
        assert [isinstance(reply, Failed) for one in answers for reply in one] == [True, True]


@pytest.fixture(scope="module")
def by_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker as the shipped configuration has it: the account is the session's name."""
    broker = Mosquitto(tmp_path_factory.mktemp("by-account"), "use_username_as_clientid true\n")
    try:
        yield broker.start()
    finally:
        broker.kill()


def mosquitto(program: str, broker: Mosquitto, account: str, *arguments: str) -> list[str]:
    """Run one of Mosquitto's clients; returns the lines that it prints."""
    command = [program, "-V", "5", "-h", broker.host, "-p", str(broker.port), "-u", account, "-q", "1"]
    ended = subprocess.run([*command, *arguments], check=True, timeout=60, capture_output=True, text=True)
    return ended.stdout.splitlines()


def test_a_boards_account_is_left_to_the_board(by_account: Mosquitto) -> None:
    """With it `edged nodes` took the board's session and deleted all questions that waited in it."""
    waits = ("-i", "board", "-c", "-x", "3600", "-t", "edged/v1/node/n1/ask/+")
    mosquitto("mosquitto_sub", by_account, "n1", *waits, "-E")
    for number in range(3):
        mosquitto("mosquitto_pub", by_account, "d1", "-t", "edged/v1/node/n1/ask/d1", "-m", f"q{number}")
    for _ in range(2):
        with pytest.raises(ClientError, match="keeps a session for the account 'n1', a board's or another"):
            Client(port=by_account.port, username="n1").connect()
    assert mosquitto("mosquitto_sub", by_account, "n1", *waits, "-C", "3", "-W", "30") == ["q0", "q1", "q2"]


def test_a_session_of_another_client_is_taken_over(by_account: Mosquitto) -> None:
    """One that was killed a moment ago, or still runs: the newest is taken in; nothing is left of either."""
    with Client(port=by_account.port, username="operator"):
        for _ in range(2):
            with Client(port=by_account.port, username="operator") as second:
                assert second.nodes() == {}
    with Client(port=by_account.port, username="operator") as third:
        assert third.nodes() == {}


def test_one_that_has_not_subscribed_yet_is_no_stranger(by_account: Mosquitto) -> None:
    """It has connected, be it anew after it was pushed out: who came just then was told to use another account.

    That left the session to its owner for a day, and so the next program was told the same.
    """
    with Client(port=by_account.port, username="operator"):
        mosquitto("mosquitto_pub", by_account, "operator", "-x", "60", "-t", "any", "-m", "")  # starts clean
        with Client(port=by_account.port, username="operator") as second:
            assert second.nodes() == {}


def test_an_interrupted_connection_leaves_no_session() -> None:
    """Ctrl-C before the broker has answered: a session stayed for seconds that had no subscription of ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # as in a terminal
        connect = f"from edged.client import Client; Client(port={server.getsockname()[1]}).connect()"
        program = subprocess.Popen([sys.executable, "-c", f"{heeds}; {connect}"], stderr=subprocess.DEVNULL)
        with server.accept()[0] as line:
            line.settimeout(30)
            line.recv(4096)
            program.send_signal(signal.SIGINT)
            assert line.recv(1) == bytes([DISCONNECT << 4])
        program.wait(30)


@pytest.mark.parametrize("late_s", [None, 0.1])
def test_an_interrupt_meets_the_start_of_the_network_thread(
    monkeypatch: pytest.MonkeyPatch, late_s: float | None
) -> None:
    """CONNECT is sent by then. It ended with an error of a thread that has not begun, and without DISCONNECT."""

    def interrupted(thread: threading.Thread) -> None:
        if late_s is not None:
            start(threading.Timer(late_s, start, [thread]))
        raise KeyboardInterrupt

    start = threading.Thread.start
    with fake(CONNACK, lambda _kind, _body: b"") as port:
        client = Client(port=port)
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.connect()
    client.close()


def test_what_was_sent_is_at_the_broker_when_the_client_is_closed(shared_broker: Mosquitto) -> None:
    """Questions to be heard of later, and orders to take the others back: of many the broker read a few.

    With its words unread the end resets the connection, and Mosquitto reads no further than to the next PUBACK.
    """
    heard: Counter[str] = Counter()
    silent = hear(
        shared_broker, "silent", "edged/v1/node/silent/#", lambda _client, _data, m: heard.update([m.topic])
    )
    wanted = {"edged/v1/node/silent/ask/c1": 3 * QUESTIONS, "edged/v1/node/silent/control/c1": 2 * QUESTIONS}
    try:
        for number in range(QUESTIONS):
            with Client(port=shared_broker.port, node="silent", name="c1") as client:
                client.ask("Is 31 C warm?", job_id=f"q{number}")
                client.ask("And 32 C?")
                client.ask("And 33 C?")
        end = time.monotonic() + 30
        while heard != wanted and time.monotonic() < end:
            time.sleep(0.05)
        assert heard == wanted
    finally:
        leave(silent)


def test_a_broker_that_acknowledges_nothing_is_left_all_the_same() -> None:
    """After a while: the last words are waited for, not more."""

    def answer(kind: int, body: bytes) -> bytes:
        return suback(body, GRANTED) if kind == SUBSCRIBE else b""

    with fake(CONNACK, answer) as port, Client(port=port, node="attic") as client:
        client.ask("Is 31 C warm?")
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < 2 * LAST_WORDS_S


def test_connected_is_connected() -> None:
    """Each of several threads may see to it: the connection was made anew, under the questions of the others."""

    def answer(kind: int, body: bytes) -> bytes:
        return suback(body, GRANTED) if kind == SUBSCRIBE else b""

    with fake(CONNACK, answer) as port, Client(port=port) as client:
        client.connect()
        assert client.nodes() == {}


def test_a_lost_connection_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back by itself, with what waits there, while `connect` says that the broker is away."""
    monkeypatch.setattr("edged.client.line.CONNECT_S", 0.5)
    broker = Mosquitto(tmp_path).start()
    try:
        with Client(port=broker.port) as client:
            broker.kill()
            while client.connected():
                time.sleep(0.05)
            with pytest.raises(UnreachableError, match="just now; start the broker"):
                client.connect()
            monkeypatch.setattr("edged.client.line.CONNECT_S", 30)
            broker.start()
            client.connect()
            assert client.connected()
    finally:
        broker.kill()


def test_a_question_whose_time_is_over_is_asked_no_more(shared_broker: Mosquitto) -> None:
    """Such as those that are heard elsewhere: each lost connection brought the answers of weeks there once more."""
    asked: Counter[bytes] = Counter()
    silent = hear(
        shared_broker,
        "silent",
        "edged/v1/node/silent/ask/+",
        lambda _client, _data, m: asked.update([bytes(m.payload)]),
    )
    proxy = Proxy(shared_broker.port)
    try:
        with Client(port=proxy.port, node="silent", name="gate") as client:
            elsewhere = "edged/v1/client/gate/answer/display"
            answer = client.ask("Is 31 C warm?", job_id="over", reply_to=elsewhere, timeout_s=0.2)
            client.ask("And 32 C?", job_id="due")
            while len(asked) < 2 or not answer.over():
                time.sleep(0.02)
            proxy.set("refuse")
            while client.connected():
                time.sleep(0.02)
            proxy.set("pass")
            while asked.total() < 3:
                time.sleep(0.02)
            assert [times for question, times in sorted(asked.items()) if b"over" in question] == [1]
    finally:
        proxy.close()
        leave(silent)


def test_what_nobody_waits_for_is_not_sent_when_the_broker_is_back(tmp_path: Path) -> None:
    """Each question of the hours without it went to the board then, one after the other, each with its cancel."""
    broker = Mosquitto(tmp_path).start()
    topics = ("edged/v1/node/silent/#",)
    node = Listener(broker.host, broker.port, topics, name="silent", persistent=True).start()
    try:
        with Client(port=broker.port, node="silent") as client:
            broker.stop()
            while client.connected():
                time.sleep(0.02)
            with pytest.raises(AnswerTimeoutError, match="the broker is away"):
                client.ask("Is 31 C warm?", timeout_s=0.1).text()
            left = client.ask("And 32 C?", timeout_s=0.1)
            client.ask("And 33 C?").close()
            client.ask("And 34 C?")
            while not left.over():
                time.sleep(0.02)
            broker.start()
            node.wait(lambda: any(b"34" in heard.payload for heard in node.heard))
            assert [heard.json.get("prompt") for heard in node.heard] == ["And 34 C?"]
    finally:
        node.stop()
        broker.kill()


def test_one_thread_closes_and_another_connects(shared_broker: Mosquitto) -> None:
    """As it was told to: the end of `close` took the new connection away, and a question then had no answer."""
    silent = hear(shared_broker, "silent", "edged/v1/node/silent/ask/+", lambda *_: None)
    try:
        with Client(port=shared_broker.port, node="silent") as client:
            for _ in range(20):
                answer = client.ask("Is 31 C warm?")
                closing = threading.Thread(target=client.close)
                closing.start()
                with pytest.raises(ClientError, match="the client was closed"):
                    answer.text()
                client.connect()
                closing.join(30)
                assert client.connected()
    finally:
        leave(silent)


@pytest.mark.parametrize("topic", ["text", "answer/+", "#"])
def test_a_devices_account_is_its_programs(by_account: Mosquitto, topic: str) -> None:
    """A session of the device itself, of other firmware a while ago say, keeps no later program of it out."""
    waits = ("-i", "old", "-c", "-x", "3600", "-t", f"edged/v1/client/d7/{topic}")
    mosquitto("mosquitto_sub", by_account, "d7", *waits, "-E")
    with Client(port=by_account.port, username="d7") as client:
        assert client.nodes() == {}


def test_a_user_name_that_is_no_name() -> None:
    """It says what to give."""
    with pytest.raises(ValueError, match=r"'a@b' does not fit into a topic: give a name; names have"):
        Client(username="a@b")
    assert Client(username="a@b", name="a").name == "a"


def test_what_a_listener_may_have_missed_is_told() -> None:
    """The connection came back by itself, and nobody can tell what happened meanwhile."""
    lives = itertools.count(1)

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind != SUBSCRIBE:
            return b""
        return suback(body, GRANTED) if b"/event" not in body or next(lives) > 1 else None

    told: list[str] = []
    with fake(CONNACK, answer) as port, Client(port=port) as client:

        def missed(why: str) -> None:
            told.append(why)
            client.close()

        assert list(client.events(missed=missed)) == []
    [why] = told
    assert "what happened meanwhile may be missing here" in why


def test_a_gap_between_two_events_is_told(tmp_path: Path) -> None:
    """Nobody looked while the connection was lost and came back, and nothing was told."""
    broker = Mosquitto(tmp_path).start()
    told: list[str] = []
    try:
        with Client(port=broker.port) as client:
            events = client.events(missed=told.append)
            for number in range(2):
                event = ("-t", "edged/v1/node/n1/event", "-m", f'{{"event": "e{number}"}}')
                mosquitto("mosquitto_pub", broker, "n1", *event)
                assert next(events).event == f"e{number}"
                assert len(told) == number
                broker.stop()
                broker.start()
                while client._line.lives < number + 2:  # noqa: SLF001
                    time.sleep(0.1)
                with pytest.raises(UnreachableError):  # behind the subscription
                    client.forget_session("s1", "nobody")
    finally:
        broker.stop()


def test_what_is_told_of_a_gap() -> None:
    """From when all was well for sure: who is stopped with Ctrl-Z learns of the loss a moment after going on."""
    gaps = Gaps()
    for at in (0.0, 0.2, 0.4, 50.0):
        assert gaps.look(at, lives=1, connected=True, crowded=False) is None
    assert gaps.look(50.2, lives=1, connected=False, crowded=False) is None
    assert gaps.look(51.4, lives=2, connected=True, crowded=False) == MISSED.format(51)


def test_programs_of_one_account_are_told_once() -> None:
    """Each pushes the other out every second; when the other one is gone, a gap is told as before."""
    gaps = Gaps()
    assert gaps.look(0.0, lives=1, connected=True, crowded=False) is None
    assert [gaps.look(float(at), lives=at, connected=at % 2 == 0, crowded=True) for at in range(1, 4)] == [
        MISSING,
        None,
        None,
    ]
    for at in (15.0, 15.2):
        assert gaps.look(at, lives=3, connected=True, crowded=False) is None
    assert gaps.look(16.0, lives=3, connected=False, crowded=False) is None
    assert gaps.look(19.0, lives=4, connected=True, crowded=False) == MISSED.format(4)
