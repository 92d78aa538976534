"""`edged nodes`, `events`, `top` and `chat`, and the client's views, against real brokers and nodes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from certificates import Authority
from faults.proxy import Proxy

from edged import __version__
from edged.client import AnswerError, AnswerTimeoutError, Client, UnreachableError
from edged.core.reply import Accepted, Delta, Done

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker import Mosquitto
    from daemon_process import DaemonProcess, MakeDaemon

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "edged", *arguments]


def environment() -> dict[str, str]:
    """Ours, without settings of edged."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    return own | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}


def edged(broker: Mosquitto, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal."""
    return subprocess.run(
        command(*arguments, "--port", str(broker.port)),
        env=environment(),
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def wait_until(told: Callable[[], bool]) -> None:
    """Until it says so."""
    end = time.monotonic() + WAIT_S
    while not told():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def node(broker: Mosquitto, daemon: MakeDaemon) -> DaemonProcess:
    """A node that answers as its questions say."""
    one = daemon(broker, {"node": {"id": "attic", "pools": ["house"]}}, scripted=True).start()
    one.wait_online()
    one.wait_health()
    return one


def test_nodes_are_listed(broker: Mosquitto, node: DaemonProcess) -> None:
    """A line a node with its level and model; JSON for programs; no node, no success."""
    listed = edged(broker, "nodes")
    assert listed.returncode == 0, listed.stderr
    assert "attic" in listed.stdout
    assert "online" in listed.stdout
    (told,) = map(json.loads, edged(broker, "nodes", "--json").stdout.splitlines())
    assert (told["node"], told["status"], told["info"]["node"]) == ("attic", "online", "attic")
    assert told["health"]["engine"] == "ready"
    calm = {
        name: told["health"].get(name, "left out") for name in ("level", "queue", "active", "engine_restarts")
    }
    assert calm == {"level": "cool", "queue": 0, "active": 0, "engine_restarts": 0}
    node.terminate()
    gone = edged(broker, "nodes")
    assert gone.returncode == 75
    assert "offline" in gone.stdout


def test_no_node_and_no_broker_are_told_in_one_line(broker: Mosquitto) -> None:
    """An empty broker and a dead one: 75 and a sentence that says what to do."""
    empty = edged(broker, "nodes")
    assert (empty.returncode, empty.stdout) == (75, "")
    assert "start one with edged run" in empty.stderr
    broker.stop()
    dead = edged(broker, "top")
    assert dead.returncode == 75
    assert dead.stderr.startswith("edged top: no broker at 127.0.0.1:")


def test_a_node_is_there_while_it_loads_its_model_for_the_first_time(
    broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path
) -> None:
    """It is `starting` and takes a question: no node had ever been at this broker, said `edged ask`."""
    loads = tmp_path / "loads"
    loads.touch()
    environ = {"SCRIPTED_LOADS": str(loads)}
    one = daemon(broker, {"node": {"id": "attic"}}, scripted=True, environment=environ)
    one.watcher.start()
    one.launch()
    one.wait_info(lambda info: info["engine"] == "starting")
    listed = edged(broker, "nodes")
    assert listed.returncode == 75
    assert listed.stdout.split()[-4:] == ["attic", "starting", "starting", __version__]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(edged, broker, "ask", "tokens=2")
        one.wait_health(lambda health: health["queue"] == 1)
        loads.unlink()
        assert (asked.result().returncode, asked.result().stdout.split()) == (0, ["w0", "w1"])
    one.terminate()
    stopped = edged(broker, "ask", "tokens=2")
    assert (stopped.returncode, stopped.stderr) == (75, "edged ask: no node is online; offline: attic\n")


@pytest.mark.parametrize("named", [(), ("--node", "attic")])
def test_a_node_is_there_while_it_loads_its_model_again(
    broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path, named: tuple[str, ...]
) -> None:
    """After a restart it is `starting`, not what its life before said last: `edged ask` refused it as offline."""
    loads = tmp_path / "loads"
    one = daemon(broker, {"node": {"id": "attic"}}, scripted=True, environment={"SCRIPTED_LOADS": str(loads)})
    one.start().terminate()
    loads.touch()
    since = one.watcher.mark
    one.launch()
    one.wait_health(lambda health: health["engine"] == "starting", since=since)
    assert edged(broker, "nodes").stdout.split()[-4:] == ["attic", "starting", "starting", __version__]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(edged, broker, "ask", *named, "tokens=2")
        one.wait_health(lambda health: health["queue"] == 1, since=since)
        loads.unlink()
        assert (asked.result().returncode, asked.result().stdout.split()) == (0, ["w0", "w1"])


def test_a_port_without_tls_is_told(broker: Mosquitto, tmp_path: Path) -> None:
    """A broker in plain text cuts the handshake short; the sentence says what to look at."""
    (tmp_path / "ca").mkdir()
    ended = edged(broker, "nodes", "--cafile", str(Authority(tmp_path / "ca").pem))
    assert ended.returncode == 1
    assert ended.stderr.endswith("does that port speak TLS?\n")


def test_events_are_followed(broker: Mosquitto, node: DaemonProcess) -> None:
    """What happens to a node comes as a line while it happens."""
    follower = subprocess.Popen(
        command("events", "--json", "--count", "1", "--port", str(broker.port)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while follower.poll() is None:  # until it has subscribed, what happens is not its
            os.kill(node.engine_pid(), 9)
            node.wait_event("engine_ready", since=len(node.watcher.heard))
        out, _ = follower.communicate(timeout=WAIT_S)
    finally:
        follower.kill()
        follower.wait()
    assert json.loads(out)["node"] == "attic"
    assert json.loads(out)["event"].startswith("engine_")


class Terminal:
    """A terminal on which one command runs, as its controlling one; what stands there is kept."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        self._seen = bytearray()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], env=environment(), cwd=ROOT, stdin=theirs, stdout=theirs
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, keys: bytes) -> None:
        """Press these."""
        os.write(self._ours, keys)

    def wait_for(self, words: bytes, since: int = 0) -> int:
        """Until these stand there; returns where they end."""
        end = time.monotonic() + WAIT_S
        while (at := self._seen.find(words, since)) < 0:
            assert time.monotonic() < end, bytes(self._seen[-3000:]).decode(errors="replace")
            time.sleep(0.05)
        return at + len(words)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)  # the kernel hangs up on who is left
        self._reader.join(5)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:
                return  # the other end is closed
            if not data:
                return
            self._seen.extend(data)


def test_top_is_a_screen_with_keys(broker: Mosquitto, node: DaemonProcess) -> None:
    """On a terminal it draws the fleet, looks closer, tells why it cannot drain, and ends with q."""
    assert node.running
    terminal = Terminal(*command("top", "--port", str(broker.port)))
    try:
        terminal.wait_for(b"attic")
        terminal.type(b"d")
        terminal.wait_for(b"choose a node first")
        terminal.type(b"\x1b[B")
        terminal.type(b"\r")
        terminal.wait_for(b"accepted")
        terminal.type(b"q")
        assert terminal.process.wait(WAIT_S) == 0
    finally:
        terminal.close()


def test_top_gives_the_terminal_to_the_shell_with_ctrl_z(broker: Mosquitto, node: DaemonProcess) -> None:
    """It left its screen there, without a cursor; and after fg no key came in before a whole line."""
    assert node.running
    shell = '"$@"; stty -a; fg; echo "ended: $?"'
    terminal = Terminal("bash", "--norc", "-ic", shell, "bash", *command("top", "--port", str(broker.port)))
    try:
        drawn = terminal.wait_for(b"attic")
        terminal.type(b"\x1a")
        left = terminal.wait_for(b"\x1b[?1049l", drawn)
        back = terminal.wait_for(b"\x1b[?1049h", terminal.wait_for(b" icanon", left))
        terminal.wait_for(b"attic", back)
        terminal.type(b"q")
        terminal.wait_for(b"ended: 0", back)
    finally:
        terminal.close()


def test_top_that_is_ended_leaves_its_terminal_as_it_was(broker: Mosquitto, node: DaemonProcess) -> None:
    """By kill(1) from elsewhere: its screen stayed there, and a shell that showed nothing of what was typed."""
    assert node.running
    terminal = Terminal(*command("top", "--port", str(broker.port)))
    try:
        drawn = terminal.wait_for(b"attic")
        terminal.process.terminate()
        terminal.wait_for(b"\x1b[?1049l", drawn)
        assert terminal.process.wait(WAIT_S) == 128 + signal.SIGTERM
    finally:
        terminal.close()


def test_an_order_that_was_told_to_have_failed_is_not_carried_out(
    broker: Mosquitto, daemon: MakeDaemon
) -> None:
    """Neither by a node that comes back, nor when the broker does: a node would drain behind everybody's back."""
    one = daemon(broker, {"node": {"id": "attic"}, "admin": {"enabled": True}}, scripted=True).start()
    one.wait_online()
    with Client(port=broker.port, node="attic") as client:
        assert client.admin("undrain")["data"] == {"draining": False}
        one.terminate()
        with pytest.raises(AnswerTimeoutError):
            client.admin("drain", timeout_s=1)
        time.sleep(1.5)
        since = one.watcher.mark
        one.start()
        one.wait_online()
        assert not one.wait_health(since=since).get("draining")
        assert not one.log("draining")
        broker.stop()
        wait_until(lambda: not client.connected())
        with pytest.raises(UnreachableError, match="the broker is away: drain was not sent"):
            client.admin("drain", timeout_s=1)
        broker.start()
        one.wait_online()
        wait_until(client.connected)
        assert client.admin("undrain")["data"] == {"draining": False}
        assert not one.log("draining")


def test_a_node_that_lets_nothing_wait_for_long_is_asked(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """The time that a person waits may be longer than any deadline that a node takes."""
    limits = {"deadline_max_s": 300, "deadline_default_s": 300}
    one = daemon(broker, {"node": {"id": "attic"}, "limits": limits}, scripted=True).start()
    one.wait_online()
    for more, most_ms in (((), 300_000), (("--timeout", "100"), 100_000), (("--timeout", "inf"), 300_000)):
        asked = edged(broker, "ask", "tokens=3", "--json", *more)
        assert asked.returncode == 0, asked.stderr
        accepted = json.loads(asked.stdout.splitlines()[0])
        assert most_ms - 2000 <= accepted["deadline_ms"] <= most_ms


def test_top_without_a_terminal_prints_once(broker: Mosquitto, node: DaemonProcess) -> None:
    """In a pipe it is a table, and that is all."""
    assert node.running
    once = edged(broker, "top")
    assert once.returncode == 0
    assert "attic" in once.stdout


def test_top_on_a_dumb_terminal_prints_once(broker: Mosquitto, node: DaemonProcess) -> None:
    """Where nothing can be drawn the table comes once: it was an empty screen."""
    assert node.running
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        command("top", "--port", str(broker.port)),
        env=environment() | {"TERM": "dumb"},
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
    )
    os.close(theirs)
    try:
        assert top.wait(WAIT_S) == 0
        assert b"attic" in os.read(ours, 65_536)
    finally:
        top.kill()
        top.wait()
        os.close(ours)


def test_chat_is_a_session(broker: Mosquitto, node: DaemonProcess) -> None:
    """Turns of one chat share a session, `/new` begins another, `/forget` ends one; errors leave the chat open."""
    talked = edged(
        broker, "chat", stdin="tokens=2\n/new\n/forget\ntokens=3\n/forget\n/what\n\n/quit\ntokens=9\n"
    )
    assert talked.returncode == 0, talked.stderr
    assert talked.stdout.splitlines() == ["w0 w1 ", "w0 w1 w2 "]
    assert "a new conversation" in talked.stderr
    assert "/what: there are" in talked.stderr
    assert [line for line in talked.stderr.splitlines() if "forg" in line or "keeps nothing" in line] == [
        "the node keeps nothing of this conversation",
        "forgotten",
        "/what: there are /new, /forget and /quit",
    ]
    assert len(node.log("job_finished")) == 2


def test_a_question_that_cannot_be_sent_leaves_the_chat_open(broker: Mosquitto, node: DaemonProcess) -> None:
    """What is too large, or no UTF-8, is told; the next line is asked."""
    assert node.running
    talked = edged(broker, "chat", stdin="word " * 110_000 + "\ntokens=2\n")
    assert talked.returncode == 0, talked.stderr
    assert talked.stdout.splitlines() == ["w0 w1 "]
    assert "the broker takes 524288 at most" in talked.stderr
    mixed = subprocess.run(
        command("chat", "--port", str(broker.port)),
        env=environment() | {"PYTHONIOENCODING": "utf-8:strict"},  # as where the locale's language is set
        cwd=ROOT,
        input=b"caf\xe9\ntokens=2\n",
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (mixed.returncode, mixed.stdout.splitlines()) == (0, [b"w0 w1 "])
    assert b"the question is not UTF-8: see its character 4" in mixed.stderr


def test_answers_for_asyncio(broker: Mosquitto, node: DaemonProcess) -> None:
    """`async for` yields the same replies, several answers side by side on one loop."""
    assert node.running

    async def both() -> tuple[list[str], list[str]]:
        with Client(port=broker.port, node="attic") as client:

            async def one(count: int) -> list[str]:
                replies = [reply async for reply in client.ask(f"tokens={count} step_ms=5")]
                assert isinstance(replies[0], Accepted)
                assert isinstance(replies[-1], Done)
                text = "".join(reply.text for reply in replies if isinstance(reply, Delta))
                assert text == replies[-1].text
                return text.split()

            return await asyncio.gather(one(4), one(7))

    assert [len(words) for words in asyncio.run(both())] == [4, 7]


def test_a_schema_as_a_class(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> None:
    """A pydantic model's class goes in, a value of it comes out: the real small model, held to the schema."""
    from pydantic import BaseModel, Field  # noqa: PLC0415 - the product's client needs none

    class Verdict(BaseModel):
        ok: bool
        celsius: int = Field(ge=0, le=999)

    daemon(broker, {"model": {"path": str(small_model)}}).start().wait_online()
    with Client(port=broker.port, node="n1") as client:
        answer = client.ask(
            "The bearing has 85 C. Is that ok?",
            schema=Verdict,
            temperature=0,
            max_tokens=60,
            timeout_s=WAIT_S,
        )
        verdict = answer.value(Verdict)
        assert isinstance(verdict, Verdict)
        with pytest.raises(AnswerError, match="too_long"):
            client.ask("Is it ok?", schema=Verdict, max_tokens=2, timeout_s=WAIT_S).value(Verdict)


def test_schema_file_and_session_of_ask(broker: Mosquitto, node: DaemonProcess, tmp_path: Path) -> None:
    """`--session` names the conversation; a schema that is no JSON is told before anything is asked."""
    for history in (0, 2):  # the second one goes on with the first, though it is another process
        asked = edged(broker, "ask", "tokens=2", "--session", "line-3", "--json")
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout.splitlines()[0])["history"] == history
    broken = tmp_path / "schema.json"
    broken.write_text("{")
    refused = edged(broker, "ask", "tokens=2", "--schema", str(broken))
    assert refused.returncode == 2
    assert "is no JSON" in " ".join(refused.stderr.replace("│", " ").split())
    assert len(node.log("job_finished")) == 2
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"name": "v", "strict": True, "schema": {"type": "integer", "maximum": 3}}))
    shaped = edged(broker, "ask", "tokens=2", "--schema", str(wrapped), "--json")
    assert json.loads(shaped.stdout.splitlines()[-1])["type"] in {"done", "error"}


def test_a_reader_that_goes_takes_the_question_back(broker: Mosquitto, node: DaemonProcess) -> None:
    """Behind `| head` nobody reads on: the question is cancelled, and nothing is complained of."""
    asking = subprocess.Popen(
        command("ask", "tokens=400 step_ms=20", "--json", "--port", str(broker.port)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asking.stdout is not None
    assert b"accepted" in asking.stdout.readline()
    asking.stdout.close()
    assert asking.stderr is not None
    assert asking.stderr.read() == b""
    asking.stderr.close()
    assert asking.wait(WAIT_S) == 141
    node.wait_log("job_cancelled")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["nodes"], ["nodes", "--json"], ["ask", "tokens=2"]],
    ids=" ".join,
)
def test_nobody_reads_what_is_printed(arguments: list[str], broker: Mosquitto, node: DaemonProcess) -> None:
    """One exit code for all: 1 would be a refusal, or a warning of the doctor; and no word of Python's."""
    del node
    reader, writer = os.pipe()
    os.close(reader)
    told = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        command(*arguments),
        env=told | {"EDGED_MQTT__PORT": str(broker.port)},
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=WAIT_S,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_full_disk_is_told_as_of_all_commands(broker: Mosquitto, node: DaemonProcess) -> None:
    """It was "[Errno 28]" and exit code 1, a refusal; what nobody can read is not computed any further."""
    asked = ["nodes"], ["nodes", "--json"], ["top"], ["chat"], ["ask", "tokens=400 step_ms=50"]
    for arguments in asked:
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                command(*arguments, "--port", str(broker.port)),
                env=environment(),
                cwd=ROOT,
                input="tokens=2\n",
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
        told = "edged: what it prints cannot be written: No space left on device; make room there\n"
        assert (ended.returncode, ended.stderr) == (74, told), arguments
    node.wait_log("job_cancelled")


def test_interrupted_while_it_is_being_loaded(tmp_path: Path) -> None:
    """A second or two on a small board, in which Ctrl-C printed a traceback."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    ended = subprocess.run(
        command("nodes"),
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, b"")


def test_what_was_lost_on_the_way_is_printed_at_the_end(broker: Mosquitto, node: DaemonProcess) -> None:
    """Deltas of a time without a connection never come: what stood there looked whole, and was half an answer."""
    proxy = Proxy(broker.port)
    asking = subprocess.Popen(
        command("ask", "--node", "attic", "--port", str(proxy.port), "tokens=60 step_ms=30"),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asking.stdout is not None
    try:
        said = os.read(asking.stdout.fileno(), 4096)
        proxy.set("refuse")
        node.wait_log("job_finished")
        proxy.set("pass")
        rest, told = asking.communicate(timeout=WAIT_S)
    finally:
        asking.kill()
        asking.wait()
        proxy.close()
    assert asking.returncode == 0, told
    assert (said + rest).decode().split() == [f"w{n}" for n in range(60)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_waits_in_line_and_is_ended(broker: Mosquitto, daemon: MakeDaemon, how: signal.Signals) -> None:
    """Behind another question a terminal is told so; a signal that ends ask or chat takes the question back."""
    node = daemon(broker, {"engine": {"slots": 1}}, scripted=True).start()
    node.wait_online()
    question = "tokens=400 step_ms=20"
    heeds = ("env", "--default-signal=HUP")  # these tests may themselves run below nohup
    words = (*heeds, *command("ask", question, "--json", "--port", str(broker.port)))
    with subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert b"accepted" in first.stdout.readline()
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            (*heeds, *command("chat", "--port", str(broker.port))),
            env=environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        ) as second:
            os.close(theirs)
            assert second.stdin is not None
            second.stdin.write(f"{question}\n".encode())
            second.stdin.flush()
            assert b"one question has to end before it begins" in os.read(ours, 4096)
            for asking in (second, first):
                asking.send_signal(how)
            assert [asking.wait(WAIT_S) for asking in (first, second)] == [128 + how] * 2
        os.close(ours)
    assert len(node.log("job_cancelled")) == 2


def test_what_nohup_starts_goes_on_without_its_terminal(broker: Mosquitto, node: DaemonProcess) -> None:
    """The hang-up that it was to ignore took the question back."""
    words = command("ask", "tokens=40 step_ms=20", "--json", "--port", str(broker.port))
    with subprocess.Popen(["nohup", *words], env=environment(), cwd=ROOT, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert b"accepted" in asking.stdout.readline()
        asking.send_signal(signal.SIGHUP)
        assert b'"type":"done"' in asking.stdout.read()
    assert asking.returncode == 0
    assert node.log("job_cancelled") == []
