"""The client and `edged ask` against a real Mosquitto, the daemon as a process, and the real small model."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from device import Listener

from edged.client import (
    Accepted,
    AnswerError,
    AnswerTimeoutError,
    Cancelled,
    Client,
    ClientError,
    Delta,
    Done,
    Failed,
    UnreachableError,
)
from edged.client.order import GAP_S, Order
from edged.core.reply import Timings, Usage
from edged.demo.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker import Mosquitto

NODE = "attic"
LONG = "Write a long story about a robot that repairs windmills."


class Daemon:
    """`edged run` for one broker."""

    def __init__(self, broker: Mosquitto, model: Path, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        settings = {
            "EDGED_NODE__ID": NODE,
            "EDGED_NODE__POOLS": "house",
            "EDGED_MQTT__PORT": str(broker.port),
            "EDGED_MODEL__PATH": str(model),
            "EDGED_PATHS__STATE": str(folder),
            "EDGED_HEALTH__INTERVAL_S": "1",
            "EDGED_ENGINE__DECODE_THREADS": "1",  # threads that wait by spinning crawl on a busy machine
            "EDGED_ENGINE__PREFILL_THREADS": "1",
        }
        self.log = folder / "daemon.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edged", "run"],
                env=environment | settings,
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_online(self, client: Client) -> None:
        """Wait until the node answers."""
        assert until(lambda: client.status(NODE, timeout_s=0.2) == "online", 60), self.log.read_text()

    def stop(self) -> None:
        """End it in good order."""
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def node(
    shared_broker: Mosquitto, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A node on the shared broker, for all tests here that do not disturb it."""
    daemon = Daemon(shared_broker, small_model, tmp_path_factory.mktemp("node"))
    try:
        with Client(port=shared_broker.port) as client:
            daemon.wait_online(client)
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def client(shared_broker: Mosquitto, node: Daemon) -> Iterator[Client]:
    """A client of that node."""
    assert node.process.poll() is None
    with Client(port=shared_broker.port, node=NODE) as one:
        yield one


def edged(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, without a terminal."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    return subprocess.run(
        [sys.executable, "-m", "edged", *arguments],
        env=own | environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_answer_streams(client: Client) -> None:
    """The deltas come in order between accepted and done, and joined they are the text."""
    answer = client.ask("What is the capital of France?", temperature=0, max_tokens=40)
    replies = list(answer)
    assert isinstance(replies[0], Accepted)
    assert isinstance(replies[-1], Done)
    assert [reply.seq for reply in replies] == list(range(len(replies)))
    assert "".join(reply.text for reply in replies if isinstance(reply, Delta)) == replies[-1].text
    assert "Paris" in answer.text()
    assert answer.node == NODE
    assert answer.first_s is not None


def test_pool(client: Client) -> None:
    """A question to a pool is answered, and the answer says by whom."""
    answer = client.ask("What is the capital of France?", pool="house", max_tokens=8)
    assert answer.text()
    assert answer.node == NODE


def test_cancel(client: Client) -> None:
    """A cancelled question ends soon, with what there was of an answer."""
    answer = client.ask(LONG, temperature=0, max_tokens=1500)
    for count, _reply in enumerate(answer):
        if count == 3:
            answer.cancel()
    assert isinstance(answer.terminal, Cancelled)
    assert answer.text()
    assert answer.terminal.usage.completion_tokens < 1500


def test_refusal(client: Client) -> None:
    """A refusal is a value in the stream and an exception of text(), with its code and figures."""
    answer = client.ask("word " * 3000)
    with pytest.raises(AnswerError, match="shorten") as caught:
        answer.text()
    assert isinstance(answer.terminal, Failed)
    assert caught.value.code == "too_long"
    assert caught.value.details["context"] == 2048


def test_timeout(client: Client) -> None:
    """An answer that takes too long is a TimeoutError, and the node stops computing it."""
    endless = {"type": "string", "minLength": 9000}
    with pytest.raises(AnswerTimeoutError):
        client.ask(
            LONG, temperature=0, max_tokens=1900, timeout_s=0.5, deadline_ms=60_000, schema=endless
        ).text()
    assert until(lambda: (client.health(fresh=True) or {}).get("active") == 0, 10)


def counts(client: Client) -> dict[str, int]:
    """What came and went at the node, told when nothing runs any more."""
    assert until(lambda: (client.health(fresh=True) or {}).get("active") == 0, 20)
    told: dict[str, int] = (client.health() or {})["counts"]
    return told


@pytest.mark.parametrize("target", [{"node": NODE}, {"pool": "house"}], ids=["node", "pool"])
def test_leaving_takes_the_question_back(client: Client, target: dict[str, Any]) -> None:
    """`with` around an answer: by `break`, by an exception, before anybody has accepted it; not once it is over."""
    before = counts(client)["cancelled"]
    with client.ask(LONG, temperature=0, max_tokens=1500, **target) as answer:
        for reply in answer:
            if isinstance(reply, Delta):
                break
    with (
        contextlib.suppress(ZeroDivisionError),
        client.ask(LONG, temperature=0, max_tokens=1500, **target) as failing,
    ):
        next(iter(failing))
        raise ZeroDivisionError
    with client.ask(LONG, temperature=0, max_tokens=1500, **target) as hasty:
        pass
    for left in (answer, failing, hasty):
        with pytest.raises(ClientError, match="was closed"):
            left.text()
    assert counts(client)["cancelled"] == before + 3
    with client.ask("What is the capital of France?", max_tokens=4, **target) as whole:
        said = whole.text()
    assert whole.text() == said
    assert counts(client)["cancelled"] == before + 3


def test_a_task_that_is_cancelled_takes_the_question_back(client: Client) -> None:
    """`async with`, under a time limit of the program's own."""
    before = counts(client)["cancelled"]

    async def hear() -> None:
        async with asyncio.timeout(1), client.ask(LONG, temperature=0, max_tokens=1500) as answer:
            async for _reply in answer:
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(hear())
    assert counts(client)["cancelled"] == before + 1


def test_closing_takes_questions_back_but_named_ones(client: Client, shared_broker: Mosquitto) -> None:
    """Nobody could hear the rest of one with a random id; one with a `job_id` can be asked for again."""
    before = counts(client)
    given: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "job_id": "kept-1"}
    with Client(port=shared_broker.port, node=NODE, name="leaver") as leaver:
        next(iter(leaver.ask(LONG, max_tokens=1500)))
        next(iter(leaver.ask("Tell me a riddle.", **given)))
    after = counts(client)
    assert (after["cancelled"], after["done"]) == (before["cancelled"] + 1, before["done"] + 1)
    with Client(port=shared_broker.port, node=NODE, name="leaver") as again:
        assert again.ask("Tell me a riddle.", **given).text()
    assert counts(client)["tokens"] == after["tokens"]


def test_nobody(client: Client) -> None:
    """A question to a node that never was fails at once and says so."""
    with pytest.raises(ClientError, match="nobody listens"):
        client.ask("Hello?", node="cellar").text()


def test_no_broker() -> None:
    """Without a broker connecting fails in one sentence."""
    with pytest.raises(ClientError, match="nothing listens there"):
        Client(port=1).connect()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"node": "a b"}, "'a b': names have"),
        ({"pool": "#"}, "'#': names"),
        ({"node": NODE, "job_id": "é"}, "'é': ids have"),
        # Its answer came under that name, and nobody waited for it there.
        ({"node": NODE, "id": "mine"}, "^id: the question is given first, and its name as job_id$"),
        ({"node": NODE, "prompt": "!"}, "^prompt: the question is given first"),
        ({"node": NODE, "timeout_s": math.nan}, "timeout_s is not a number"),
    ],
)
def test_what_cannot_be_asked_is_told(wrong: dict[str, Any], words: str) -> None:
    """At once, with what is accepted; and nothing of it is sent when there is a connection."""
    client = Client()
    with pytest.raises(ValueError, match=words):
        client.ask("?", **wrong)
    assert client._waiting.all() == []  # noqa: SLF001


def test_a_time_limit_that_is_a_text_leaves_nothing() -> None:
    """Each later connection asked it again, which failed, and none of the questions behind it was asked."""
    client = Client()
    with pytest.raises(TypeError):
        client.ask("?", node=NODE, timeout_s="3")  # type: ignore[arg-type]
    assert client._waiting.all() == []  # noqa: SLF001


@pytest.mark.parametrize(
    "ask",
    [Client.status, Client.health, Client.nodes, Client.fleet, lambda one: one.forget_session("line-3")],
    ids=["status", "health", "nodes", "fleet", "forget_session"],
)
def test_before_connecting_nothing_is_heard(ask: Callable[[Client], object]) -> None:
    """It is told at once: these waited in vain, and said that no node was ever there."""
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"call connect\(\)"):
        ask(Client(node=NODE))
    assert time.monotonic() - began < 1


def test_nobody_answers_and_why(broker: Mosquitto) -> None:
    """At once where the broker knows no such node; with a word on the broker where that is away."""
    with Client(port=broker.port, node="cellar") as one:
        with pytest.raises(UnreachableError, match="knows no node cellar"):
            one.forget_session("line-3")
        broker.stop()
        assert until(lambda: not one.connected(), 10)
        with pytest.raises(AnswerTimeoutError, match="the broker is away"):
            one.forget_session("line-3", timeout_s=0.2)
        with pytest.raises(AnswerTimeoutError, match=r"within 0\.2 s; the broker is away"):
            one.ask("Hello?", timeout_s=0.2).text()


def test_a_closed_client_leaves_no_files(shared_broker: Mosquitto) -> None:
    """The pair of sockets that paho has goes too, not when the garbage collector comes by and warns of it."""
    files = Path("/proc/self/fd")
    gc.collect()
    gc.disable()
    try:
        before = len(list(files.iterdir()))
        for _ in range(3):
            with Client(port=shared_broker.port) as one:
                assert one.status("cellar", timeout_s=0.1) is None
        assert len(list(files.iterdir())) <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("prefix", ["", "a/+", "/edged", "edged/", "a b"])
def test_a_prefix_that_fits_no_topic_is_told(prefix: str) -> None:
    """`a/+` once came out as "too many values to unpack", the others as "no node has ever been at this broker"."""
    with pytest.raises(ValueError, match="prefixes have"):
        Client(prefix=prefix)


@contextlib.contextmanager
def refusing_with(connack: bytes, port: int = 0) -> Iterator[int]:
    """What answers one connection with these bytes; yields its port."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def refuse() -> None:
            with server.accept()[0] as line:
                line.recv(4096)
                line.sendall(connack)

        refusing = threading.Thread(target=refuse, daemon=True)
        refusing.start()
        yield server.getsockname()[1]
        refusing.join()


def test_a_broker_without_mqtt_5() -> None:
    """One of 3.1.1 alone answers with return code 1 (MQTT 3.1.1, 3.2.2.3); that is said in words."""
    refusal = pytest.raises(ClientError, match="it has no MQTT 5")
    with refusing_with(b"\x20\x02\x00\x01") as port, refusal:
        Client("127.0.0.1", port).connect()


def test_a_broker_that_refuses_for_now(broker: Mosquitto) -> None:
    """A broker that is still starting says so (reason 0x88); the same client connects once it takes it in."""
    broker.stop()
    client = Client("127.0.0.1", broker.port)
    refusal = pytest.raises(UnreachableError, match="Server unavailable; try again later")
    with refusing_with(b"\x20\x03\x00\x88\x00", broker.port), refusal:
        client.connect()
    broker.start()
    client.connect()
    assert client.alive()
    assert client.status("cellar", timeout_s=0.2) is None
    client.close()


def test_without_a_connection_nothing_is_asked(client: Client) -> None:
    """Before and after it the asker is told at once what to call; then it works, and old questions stay ended."""
    with pytest.raises(ClientError, match=r"call connect\(\)"):
        Client(node=NODE).ask("Hello?").text()
    left = client.ask(LONG, temperature=0, max_tokens=1500)
    client.close()
    with pytest.raises(ClientError, match=r"call connect\(\)"):
        client.ask("Hello?").text()
    client.connect()
    assert client.ask("What is the capital of France?", max_tokens=4).text()
    with pytest.raises(ClientError, match="closed"):
        left.text()


def test_same_id_is_answered_once(client: Client) -> None:
    """The same question under the same id gets the same answer again."""
    first = client.ask("Tell me a joke.", job_id="joke-1", max_tokens=30).text()
    assert client.ask("Tell me a joke.", job_id="joke-1", max_tokens=30).text() == first


def test_one_id_asked_by_two_threads(client: Client) -> None:
    """While the first still waits a second asks the same: both get the answer, and one that gives up takes none."""
    given: dict[str, Any] = {"job_id": "joke-2", "max_tokens": 60, "temperature": 0}
    first = client.ask("Tell me a joke.", **given)
    next(iter(first))
    hasty = client.ask("Tell me a joke.", **given, timeout_s=0.01, deadline_ms=600_000)
    second = client.ask("Tell me a joke.", **given)
    with pytest.raises(AnswerTimeoutError):
        hasty.text()
    first.within(30)
    second.within(30)
    assert first.text()
    assert second.text() == first.text()


def test_news_of_a_node(client: Client) -> None:
    """Status, info and health are read from the retained topics; fresh health is a later one."""
    assert client.status() == "online"
    assert client.nodes()[NODE] == "online"
    assert client.status("cellar", timeout_s=0.2) is None
    assert (client.info() or {})["model"]["quantisation"] == "Q4_0"
    before = client.health() or {}
    after = client.health(fresh=True) or {}
    assert after["uptime_s"] >= before["uptime_s"]
    assert before["level"] in {"cool", "warm", "hot", "critical"}


def test_broken_payloads_do_not_end_the_connection(client: Client, shared_broker: Mosquitto) -> None:
    """What is no reply is passed over; the network thread lives on."""
    with Client(port=shared_broker.port, node=NODE, name=client.name) as other:
        answer = client.ask("What is the capital of France?", max_tokens=60)
        topic = f"edged/v1/client/{client.name}/answer/{answer.id}"
        for payload in (b"\xff", b"{", b'{"type": "poem", "id": "1"}', b"[" * 5000, b""):
            other._line._paho.publish(topic, payload, qos=1)  # noqa: SLF001 - a stranger's bytes
        assert answer.text()
    assert client.alive()


def test_a_reply_of_a_later_version_holds_up_nothing(client: Client, shared_broker: Mosquitto) -> None:
    """Nobody here knows its type, and what came behind it was taken for early: each stood still for a second."""
    later = Listener(shared_broker.host, shared_broker.port, ("edged/v1/node/later/ask/+",)).start()
    try:
        with client.ask("Anything?", node="later", timeout_s=5) as answer:
            later.wait_for(f"/ask/{client.name}")
            topic = f"edged/v1/client/{client.name}/answer/{answer.id}"
            accepted: dict[str, Any] = {"type": "accepted", "node": "later", "position": 0, "eta_ms": 1}
            for seq, told in enumerate((accepted, {"type": "progress"}, {"type": "delta", "text": "a"})):
                later.publish(topic, json.dumps({"id": answer.id, "seq": seq, **told}).encode())
            replies = iter(answer)
            assert [next(replies).seq for _ in range(2)] == [0, 2]
    finally:
        later.stop()


def test_an_end_of_a_later_version_is_told(client: Client, shared_broker: Mosquitto) -> None:
    """Its words are not known here: whoever waited on got nothing, and was told to ask again with more time."""
    with (
        Client(port=shared_broker.port, node=NODE, name=client.name) as other,
        client.ask("Write a long story.", max_tokens=600, temperature=0, timeout_s=30) as answer,
    ):
        end = json.dumps({"type": "done", "id": answer.id, "finish_reason": "bored"}).encode()
        topic = f"edged/v1/client/{client.name}/answer/{answer.id}"
        other._line._paho.publish(topic, end, qos=1)  # noqa: SLF001 - a later node's words
        with pytest.raises(ClientError, match="of a later version; update edged here"):
            answer.text()


@pytest.mark.parametrize("payload", [b"\xff", b'{"model": "\xff"}', b'{"model": ' + b"[" * 5000])
def test_news_that_cannot_be_read(client: Client, shared_broker: Mosquitto, payload: bytes) -> None:
    """Nothing is known of a node that says such."""
    assert client.info("odd", 0.1) is None
    with Client(port=shared_broker.port) as other:
        other._line._paho.publish("edged/v1/node/odd/info", payload, qos=1).wait_for_publish(10)  # noqa: SLF001
        assert client.info("odd") is None
    assert "edged/v1/node/odd/info" in client._latest, "it never came"  # noqa: SLF001


def test_a_question_of_too_many_bytes_is_refused_at_once(client: Client) -> None:
    """The node does not read it: its refusal takes the id from the Correlation Data. Brokers drop larger ones."""
    with pytest.raises(AnswerError, match="too_large: the payload has 90"):
        client.ask("word " * 18_000, timeout_s=30).text()
    with pytest.raises(ClientError, match="the broker takes 524288 at most"):
        client.ask("word " * 110_000, timeout_s=30).text()
    with pytest.raises(ClientError, match="send at most 1048576"):
        client.ask("word " * 300_000, timeout_s=30)


@pytest.mark.parametrize("question", ["caf\udce9?", [{"role": "user", "content": "\ud83d"}]])
def test_a_question_that_is_no_unicode_is_told(client: Client, question: Any) -> None:
    """Bytes of another encoding come as lone surrogates from a command line."""
    with pytest.raises(ValueError, match="the question is not UTF-8"):
        client.ask(question)


def test_threads_share_a_client(client: Client) -> None:
    """Several threads ask at once, each gets its own answer."""
    texts: dict[str, str] = {}

    def ask(job_id: str) -> None:
        texts[job_id] = client.ask("Tell me a joke.", job_id=job_id, max_tokens=10).text()

    threads = [threading.Thread(target=ask, args=(f"t-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([text for text in texts.values() if text]) == 6


def test_broker_dies_while_an_answer_streams(broker: Mosquitto, small_model: Path, tmp_path: Path) -> None:
    """The broker is killed in the middle and started again: the whole answer arrives, in order, once."""
    daemon = Daemon(broker, small_model, tmp_path)
    try:
        with Client(port=broker.port, node=NODE) as client:
            daemon.wait_online(client)
            answer = client.ask(LONG, max_tokens=120, temperature=0, timeout_s=60)
            seqs: list[int] = []
            pieces: list[str] = []
            for reply in answer:
                if reply.seq == 3:
                    broker.kill()
                    broker.start()
                seqs.append(reply.seq)
                if isinstance(reply, Delta):
                    pieces.append(reply.text)
            assert isinstance(answer.terminal, Done), answer.terminal
            assert seqs == sorted(set(seqs))
            assert answer.terminal.text.startswith("".join(pieces[:3]))
            assert answer.terminal.usage.completion_tokens > 20
    finally:
        daemon.stop()


@pytest.mark.usefixtures("node")
def test_ask_json(shared_broker: Mosquitto) -> None:
    """`edged ask --json` finds the only node and prints its replies, one a line."""
    ended = edged("ask", "--json", "--port", str(shared_broker.port), "--max-tokens", "12", "Say hello.")
    assert ended.returncode == 0, ended.stderr
    replies = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [reply["seq"] for reply in replies] == list(range(len(replies)))
    assert replies[0]["type"] == "accepted"
    assert replies[-1]["type"] == "done"


@pytest.mark.usefixtures("node")
def test_ask_text(shared_broker: Mosquitto) -> None:
    """The answer alone stands on standard output, its figures on standard error."""
    question = ["--temperature", "0", "--max-tokens", "40", "What is the capital of France?"]
    ended = edged("ask", "--node", NODE, "--port", str(shared_broker.port), *question)
    assert ended.returncode == 0, ended.stderr
    assert "Paris" in ended.stdout
    assert "tokens/s" in ended.stderr
    assert "tokens/s" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port", "1", "Hello?"], 75, "nothing listens there"),
        (["--node", "a", "--pool", "b", "Hello?"], 2, "not both"),
        (["--pool", "b", "--session", "s", "Hello?"], 2, "one board's"),
        (["--temperature", "3", "Hello?"], 2, "temperature"),
    ],
    ids=["no broker", "two targets", "a pool's conversation", "temperature"],
)
def test_ask_usage(arguments: list[str], code: int, words: str) -> None:
    """What cannot be asked ends with its exit code and a word on it."""
    ended = edged("ask", *arguments)
    assert ended.returncode == code
    assert words in ended.stderr


@pytest.mark.usefixtures("node")
def test_ask_refused(shared_broker: Mosquitto) -> None:
    """A refusal is one line on standard error and exit code 1."""
    ended = edged("ask", "--port", str(shared_broker.port), "--node", NODE, "word " * 3000)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "too_long" in ended.stderr


def test_ask_without_nodes(broker: Mosquitto) -> None:
    """With no node at the broker the command says so, and that later may be better (75)."""
    ended = edged("ask", "--port", str(broker.port), "Hello?")
    assert ended.returncode == 75
    assert "no node" in ended.stderr


DONE = Done(
    id="q",
    seq=9,
    text="",
    finish_reason="stop",
    usage=Usage(),
    timings=Timings(),
    model="m",
    node=NODE,
    attempt=1,
)


def _delta(seq: int) -> Delta:
    return Delta(id="q", seq=seq, text=str(seq))


def _accepted(eta_ms: int) -> Accepted:
    return Accepted(id="q", seq=0, node=NODE, position=0, eta_ms=eta_ms, prompt_tokens=1, context=2048)


def test_order_waits_for_what_is_missing() -> None:
    """Replies come out in sequence and once, whatever order they come in."""
    order = Order()
    taken = [order.take(reply, 0.0) for reply in (_accepted(1), _delta(2), _delta(2), _delta(1), _delta(1))]
    assert [[reply.seq for reply in ready] for ready in taken] == [[0], [], [], [1, 2], []]
    assert not order.gap


def test_order_does_not_wait_for_ever() -> None:
    """After a second a lost delta is given up; the terminal message waits for nothing."""
    order = Order()
    order.take(_accepted(1), 0.0)
    assert order.take(_delta(2), 0.0) == []
    assert [reply.seq for reply in order.take(_delta(3), GAP_S + 0.1)] == [2, 3]
    assert order.take(_delta(6), 3.0) == []
    assert [reply.seq for reply in order.take(DONE, 3.0)] == [6, 9]


def test_order_passes_over_what_cannot_be_read() -> None:
    """It came, so nothing waits for it, early or late; the next gap has its own second."""
    order = Order()
    order.take(_accepted(1), 0.0)
    assert (order.pass_over(1, 0.0), order.gap) == ([], False)
    assert [reply.seq for reply in order.take(_delta(2), 0.0)] == [2]
    assert (order.pass_over(4, 0.0), order.pass_over(-1, 0.0), order.gap) == ([], [], True)
    assert [reply.seq for reply in order.take(_delta(3), 0.9)] == [3]
    assert order.pass_over(6, 0.9) == []
    assert (order.take(_delta(7), 1.5), order.gap) == ([], True)
    assert [reply.seq for reply in order.take(_delta(8), 2.0)] == [7, 8]


def test_order_begins_anew() -> None:
    """Another `accepted` with number 0 begins the next attempt; a copy of the first one does not."""
    order = Order()
    for reply in (_accepted(1), _delta(1), _delta(2)):
        order.take(reply, 0.0)
    assert order.take(_accepted(1), 0.0) == []
    assert [reply.seq for reply in order.take(_delta(3), 0.0)] == [3]
    assert [reply.seq for reply in order.take(_accepted(2), 0.0)] == [0]
    assert [reply.seq for reply in order.take(_delta(1), 0.0)] == [1]


def test_closing_ends_open_answers(client: Client) -> None:
    """Closing the client ends a waiting asker with an error, not never."""
    answer = client.ask(LONG, temperature=0, max_tokens=1500)
    next(iter(answer))
    threading.Timer(0.1, client.close).start()
    began = time.monotonic()
    with pytest.raises(ClientError, match="closed"):
        answer.text()
    assert time.monotonic() - began < 10
