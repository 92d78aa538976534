"""The operator's orders: over MQTT where they are switched on, and over the socket on the node's own machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import WAIT_S, Listener, MakeDevice

from edged.client import Client

LONG = "tokens=400 step_ms=20"
SHORT = "tokens=60 step_ms=20"
RESULTS = ("edged/v1/node/n1/admin/+/result",)
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


class Operator(Listener):
    """Gives orders over MQTT and reads their results."""

    def order(self, op: str, transaction: str, **fields: Any) -> dict[str, Any]:
        """Give an order; returns its result."""
        since = self.mark
        self.send(op, json.dumps({"transaction": transaction, **fields}).encode())
        result = self.wait_for(f"/admin/{op}/result", since=since).json
        assert result["transaction"] == transaction
        return dict(result)

    def send(self, op: str, payload: bytes) -> None:
        """Publish an order."""
        self.publish(f"edged/v1/node/n1/admin/{op}", payload)


@pytest.fixture
def operator(broker: Mosquitto) -> Any:
    """An operator that is connected."""
    person = Operator(broker.host, broker.port, RESULTS, name="operator")
    person.start()
    yield person
    person.stop()


def edged(
    node: DaemonProcess, *arguments: str, wrapper: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command against the node's socket."""
    path = node.config.parent / "state" / "control.sock"
    command = [*wrapper, sys.executable, "-m", "edged", *arguments, "--socket", str(path)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


ON = {"admin": {"enabled": True}}


def test_drain_and_undrain(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, operator: Operator
) -> None:
    """Draining: what runs is finished, new questions are refused with a time, the pool is left; then back."""
    sections: dict[str, dict[str, Any]] = {**ON, "node": {"id": "n1", "pools": ["hall"]}}
    node = daemon(broker, sections, scripted=True).start()
    node.wait_info(lambda info: info["membership"]["in"] == ["hall"])
    asking = device(broker, "drain-dev")
    running = asking.ask(SHORT)
    asking.wait_reply(running, "delta")
    result = operator.order("drain", "t-1")
    assert result == {
        "transaction": "t-1",
        "status": "ok",
        "data": {"draining": True, "idle": False, "jobs": 1},
        "error": None,
    }
    refused = asking.answer(asking.ask("x")).check().last
    assert (refused["code"], refused["retry_after_ms"]) == ("draining", 30_000)
    assert asking.answer(running).check().last["type"] == "done"
    node.wait_event("drained")
    health = node.wait_health(lambda h: h.get("draining"))
    assert health["membership"] == {"in": [], "out": ["hall"], "reasons": ["draining"]}
    assert operator.order("undrain", "t-2")["data"] == {"draining": False}
    node.wait_event("undrained")
    assert asking.answer(asking.ask("x")).check().last["type"] == "done"
    node.wait_health(lambda h: h["membership"]["in"] == ["hall"] and "draining" not in h)


def test_who_listens_before_an_order_hears_what_it_does(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Also where he looks only afterwards: he waited for ever for what had come meanwhile."""
    daemon(broker, {"admin": {"enabled": True}}, scripted=True).start()
    with Client(port=broker.port, node="n1") as client:
        happening = client.events("n1")
        client.admin("drain")
        end = threading.Timer(WAIT_S, client.close)
        end.start()
        assert any(event.event == "drained" for event in happening)
        end.cancel()
        with pytest.raises(ValueError, match="names have"):
            client.events("no name")


def test_off_unless_configured(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, operator: Operator
) -> None:
    """Without the setting nobody's order is heard."""
    daemon(broker, scripted=True).start()
    operator.send("drain", b'{"transaction": "t"}')
    asking = device(broker, "off-dev")
    assert asking.answer(asking.ask("x")).check().last["type"] == "done"
    assert operator.heard == []


def test_wrong_orders_get_one_sentence(broker: Mosquitto, daemon: MakeDaemon, operator: Operator) -> None:
    """What cannot be done is answered with what to change, under its transaction where that can be read."""
    node = daemon(broker, ON, scripted=True).start()
    table: list[tuple[str, bytes, str, str]] = [
        ("drain", b"not JSON", "", "an order is"),
        ("drain", b"\xff\xfe", "", "an order is"),
        ("drain", b'{"transaction": 7}', "", "transaction"),
        ("drain", b'{"transaction": ""}', "", "1 to 128"),
        ("drain", b'{"transaction": "a", "wrong": 1}', "a", "wrong"),
        ("drain", b'{"transaction": "a", "path": "x"}', "a", "takes no path"),
        ("explode", b'{"transaction": "a"}', "a", "is no operation"),
        ("drain", b'{"transaction": "a", "set": ' + b"[" * 9000 + b"}", "", "an order is"),
        ("drain", b'{"transaction": "' + b"a" * 20_000 + b'"}', "", "at most 16384 bytes"),
        ("config", b'{"transaction": "a", "set": {"limits.nothing": 1}}', "a", "unknown key"),
        ("config", b'{"transaction": "a", "set": {"engine.slots": 1}}', "a", "needs a restart"),
        ("config", b'{"transaction": "a", "set": {"limits.queue_jobs": true}}', "a", "limits.queue_jobs"),
        ("model", b'{"transaction": "a", "path": "x.gguf"}', "a", "set admin.models"),
        ("model", b'{"transaction": "a", "path": "../x.gguf"}', "a", "within admin.models"),
        ("model", b'{"transaction": "a", "path": "x", "sha256": "zz"}', "a", "64 hexadecimal"),
    ]
    for op, payload, transaction, words in table:
        since = operator.mark
        operator.send(op, payload)
        result = operator.wait_for(f"/admin/{op}/result", since=since).json
        assert result["status"] == "error", payload[:80]
        assert result["transaction"] == transaction, payload[:80]
        assert words in result["error"], payload[:80]
    assert node.running


def test_config_changes_at_run_time(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, operator: Operator
) -> None:
    """`config` shows what can change, and changes it for the questions that come from then on."""
    node = daemon(broker, ON, scripted=True).start()
    shown = operator.order("config", "c-1")["data"]
    assert shown["changed"] == {}
    assert shown["settings"]["limits.client_jobs"] == 16
    assert "engine.slots" not in shown["settings"]
    changes = {"limits.client_jobs": 1, "log.level": "debug", "node.pools": ["lab"]}
    result = operator.order("config", "c-2", set=changes)["data"]
    assert result["changed"] == changes
    node.wait_info(lambda info: info["limits"]["client_jobs"] == 1 and info["pools"] == ["lab"])
    node.wait_health(lambda h: h.get("membership", {}).get("in") == ["lab"])
    asking = device(broker, "config-dev")
    first = asking.ask(SHORT)
    asking.wait_reply(first, "accepted")
    assert asking.answer(asking.ask("x")).check().last["details"]["limit"] == 1
    node.wait_log("question_arrived")  # a line of level debug


def test_info_follows_a_change(broker: Mosquitto, daemon: MakeDaemon, operator: Operator) -> None:
    """A limit alone, and pools that are all given up: whoever reads the retained message knows it at once."""
    sections: dict[str, dict[str, Any]] = {**ON, "node": {"id": "n1", "pools": ["hall"]}}
    node = daemon(broker, {**sections, "health": {"interval_s": 3600}}, scripted=True).start()
    node.wait_info(lambda info: info.get("membership", {}).get("in") == ["hall"])
    operator.order("config", "c-1", set={"limits.queue_jobs": 32})
    node.wait_info(lambda info: info["limits"]["queue_jobs"] == 32)
    operator.order("config", "c-2", set={"node.pools": []})
    node.wait_info(lambda info: info["pools"] == [] and "membership" not in info)
    assert node.wait_event("pools_left")["pools"] == ["hall"]


def test_restart(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, operator: Operator) -> None:
    """An orderly end, which systemd follows with a start; the same order delivered again restarts nothing."""
    node = daemon(broker, ON, scripted=True).start()
    asking = device(broker, "restart-dev")
    job = asking.ask(LONG)
    asking.wait_reply(job, "delta")
    assert operator.order("restart", "r-1")["data"] == {"running": 1}
    assert node.wait_end() == 0
    node.start()
    assert operator.order("restart", "r-1")["data"] == {"restarted": True}
    assert asking.answer(job).attempts[-1][-1]["type"] == "done"
    assert node.running


def test_another_model(  # noqa: PLR0917 - fixtures
    broker: Mosquitto,
    daemon: MakeDaemon,
    device: MakeDevice,
    operator: Operator,
    small_model: Path,
    tmp_path: Path,
) -> None:
    """Another file of the folder is loaded, while questions run and wait, and no question is lost.

    One that is not what its SHA-256 says leaves the node with the model that it had.
    """
    other = tmp_path / "other.gguf"
    shutil.copyfile(small_model, other)
    (tmp_path / "text.gguf").write_text("no model")
    sections: dict[str, dict[str, Any]] = {
        "admin": {"enabled": True, "models": str(tmp_path)},
        "model": {"path": str(small_model), "name": "first"},
        "engine": {"slots": 1, "decode_threads": 1, "prefill_threads": 1},
    }
    node = daemon(broker, sections).start(timeout_s=120)
    asking = device(broker, "model-dev")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "round.gguf").symlink_to("round.gguf")
    unfit = {"absent.gguf": "No such file", "text.gguf": "no GGUF file"}
    unfit |= {"round.gguf": "symbolic links", "pipe.gguf": "no regular file"}
    for path, words in unfit.items():
        assert words in operator.order("model", f"m-{path}", path=path)["error"]
    jobs = [asking.ask(f"Count from {n}.", max_tokens=20) for n in range(4)]
    asking.wait_reply(jobs[0], "delta")
    wrong = operator.order("model", "m-1", path="other.gguf", sha256="0" * 64)
    assert wrong["status"] == "error"
    assert "the model before it is used" in wrong["error"]
    right = operator.order("model", "m-2", path="other.gguf")
    assert right["status"] == "ok", right
    node.wait_event("model_changed")
    jobs.append(asking.ask("Hello.", max_tokens=5))
    done = [asking.answer(job, 3 * WAIT_S).last for job in jobs]
    assert [reply["type"] for reply in done] == ["done"] * 5
    assert done[-1]["model"] != "first"
    assert node.wait_info(lambda info: info.get("model", {}).get("name") == done[-1]["model"])
    assert operator.order("model", "m-2", path="other.gguf") == right  # delivered twice, done once
    assert "no GGUF" in operator.order("model", "m-2", path="text.gguf")["error"]  # that one is another order


def test_back_to_its_own_model(  # noqa: PLR0917 - fixtures
    broker: Mosquitto,
    daemon: MakeDaemon,
    device: MakeDevice,
    operator: Operator,
    small_model: Path,
    tmp_path: Path,
) -> None:
    """Name and chat template of the settings are their own file's: not another's, and again once that is back."""
    for name in ("own.gguf", "other.gguf"):
        shutil.copyfile(small_model, tmp_path / name)
    template = tmp_path / "template"
    template.write_text("{% for message in messages %}{{ message.content }} {% endfor %}")
    sections: dict[str, dict[str, Any]] = {
        "admin": {"enabled": True, "models": str(tmp_path)},
        "model": {"path": str(tmp_path / "own.gguf"), "name": "own", "chat_template": str(template)},
    }
    daemon(broker, sections).start(timeout_s=120)
    asking = device(broker, "model-dev")

    def ask() -> tuple[str, int]:
        done = asking.answer(asking.ask("Hello.", max_tokens=2), 3 * WAIT_S).last
        return done["model"], done["usage"]["prompt_tokens"]

    name, prompt_tokens = ask()
    assert name == "own"
    assert operator.order("model", "m-1", path="other.gguf")["status"] == "ok"
    another, more = ask()
    assert (another != name, more > prompt_tokens) == (True, True)
    assert operator.order("model", "m-2", path="own.gguf")["data"] == {"model": "own"}
    assert ask() == (name, prompt_tokens)


def test_an_order_that_was_refused_may_be_repeated(
    broker: Mosquitto, daemon: MakeDaemon, operator: Operator, tmp_path: Path
) -> None:
    """Word for word, once its file is there: nothing was done for it that is not to be done twice."""
    sections: dict[str, dict[str, Any]] = {"admin": {"enabled": True, "models": str(tmp_path)}}
    daemon(broker, sections, scripted=True).start()
    assert "No such file" in operator.order("model", "m-1", path="late.gguf")["error"]
    (tmp_path / "late.gguf").write_bytes(b"GGUF")
    assert operator.order("model", "m-1", path="late.gguf")["status"] == "ok"


def test_a_model_for_a_node_whose_own_crashes(
    broker: Mosquitto, daemon: MakeDaemon, operator: Operator, tmp_path: Path
) -> None:
    """The first try does no better, and is answered all the same: the next one is heard, and helps."""
    abort = tmp_path / "abort"
    abort.touch()
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    sections: dict[str, dict[str, Any]] = {"admin": {"enabled": True, "models": str(tmp_path)}}
    node = daemon(broker, sections, scripted=True, environment={"SCRIPTED_ABORT": str(abort)})
    node.start(engine="broken")
    failed = operator.order("model", "m-1", path="other.gguf")
    assert "cannot be used either" in failed["error"]
    abort.unlink()
    assert operator.order("model", "m-2", path="other.gguf")["status"] == "ok"
    node.wait_info(lambda info: info["engine"] == "ready")


def test_cache_clear(broker: Mosquitto, daemon: MakeDaemon, operator: Operator) -> None:
    """There is nothing to clear, and that is told."""
    daemon(broker, ON, scripted=True).start()
    assert operator.order("cache_clear", "k-1")["data"] == {"answers": 0}


def test_commands_on_the_machine(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """`edged drain` waits until all is answered; `status` and `undrain`; no broker account is needed."""
    node = daemon(broker, scripted=True).start()
    path = node.config.parent / "state" / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    asking = device(broker, "local-dev")
    job, held = asking.ask(LONG), asking.ask("tokens=900 step_ms=200")
    asking.wait_reply(job, "delta")
    asking.wait_reply(held, "delta")
    told = edged(node, "status", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["running"] == 2
    hasty = edged(node, "drain", "--timeout", "0.1")
    assert hasty.returncode == 75
    assert "not idle" in hasty.stderr
    asking.control("cancel", held)
    drained = edged(node, "drain", "--timeout", "60")
    assert (drained.returncode, "draining, idle" in drained.stdout) == (0, True)
    assert asking.answer(job).check().last["type"] == "done"
    assert asking.answer(asking.ask("x")).last["code"] == "draining"
    assert edged(node, "undrain").returncode == 0
    assert asking.answer(asking.ask("x")).last["type"] == "done"
    path.chmod(0)
    closed = edged(node, "status", wrapper=WITHOUT_PRIVILEGE if os.geteuid() == 0 else ())
    assert (closed.returncode, "root and the service's group may" in closed.stderr) == (69, True)
    assert node.terminate() == 0
    absent = edged(node, "status")
    assert absent.returncode == 69
    assert "no daemon answers here" in absent.stderr


def test_hostile_words_at_the_socket(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Nonsense, silence and too much are answered or dropped; the node goes on."""
    node = daemon(broker, scripted=True).start()
    path = str(node.config.parent / "state" / "control.sock")
    for words in (b"\xff\xff\n", b"[" * 10_000 + b"\n", b"x" * 100_000, b""):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WAIT_S)
            line.connect(path)
            try:
                line.sendall(words)
                line.shutdown(socket.SHUT_WR)
                answer = line.recv(65_536)
            except (BrokenPipeError, ConnectionResetError):
                continue
            assert not answer or json.loads(answer)["status"] == "error"
    assert edged(node, "status").returncode == 0


class Systemd:
    """The socket that systemd would listen on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(WAIT_S)

    def wait_for(self, word: bytes) -> bytes:
        """The next message that begins with this."""
        while not (message := self._socket.recv(4096)).startswith(word):
            pass
        return message

    def close(self) -> None:
        """Nobody listens any more."""
        self._socket.close()


def test_a_reload_lets_larger_questions_in(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice) -> None:
    """The broker is told once how large a packet may be, and drops larger ones in silence."""
    node = daemon(broker, {"limits": {"payload_bytes": 1024}}, scripted=True).start()
    asking = device(broker, "large")
    node.config.write_text(node.config.read_text().replace("payload_bytes = 1024", "payload_bytes = 1048576"))
    os.kill(node.pid, signal.SIGHUP)
    assert node.wait_log("reloaded")["changed"] == {"limits.payload_bytes": 1_048_576}
    question = asking.ask("tokens=2 " + "x" * 90_000)
    assert asking.answer(question).check().last["type"] == "done"


def test_answers_are_no_longer_than_the_operator_wants(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice
) -> None:
    """Plain text brings no bound of its own, and a small model may write on to the end of the context.

    What a question is does not hang on it: the same one again, after a reload, gets the answer of before.
    """
    node = daemon(broker, {"limits": {"answer_tokens": 3}}, scripted=True).start()
    asking = device(broker, "long")
    asking.ask_text("tokens=9")
    assert asking.wait(asking.texts) == ["w0 w1 w2 "]
    first = asking.answer(asking.ask("tokens=9", id="again")).check()
    assert (first.text, first.last["finish_reason"]) == ("w0 w1 w2 ", "length")
    assert asking.answer(asking.ask("tokens=9", max_tokens=5)).text == "w0 w1 w2 w3 w4 "
    node.config.write_text(node.config.read_text().replace("answer_tokens = 3", ""))
    os.kill(node.pid, signal.SIGHUP)
    assert node.wait_log("reloaded")["changed"] == {"limits.answer_tokens": None}
    assert asking.answer(asking.ask("tokens=9 x")).text == "".join(f"w{number} " for number in range(9))
    since = asking.mark
    asking.ask("tokens=9", id="again")
    assert asking.wait_for("/again", since=since).json["text"] == first.text


def test_reload(broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path) -> None:
    """SIGHUP: what can change does, what needs a restart is named, a wrong file changes nothing."""
    systemd = Systemd(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": str(systemd.path)}
    secret = tmp_path / "password"
    secret.write_text("the first one\n")
    sections: dict[str, dict[str, Any]] = {
        "limits": {"client_jobs": 4},
        "mqtt": {"username": "n1", "password_file": str(secret)},
    }
    node = daemon(broker, sections, scripted=True, environment=environment).start()
    good = node.config.read_text()
    secret.write_text("the second one\n")
    node.config.write_text(
        good.replace("client_jobs = 4", "client_jobs = 1").replace(
            "slots = 2", "slots = 1\ncontext_max = 1280"
        )
    )
    systemd.wait_for(b"EXTEND_TIMEOUT_USEC=")  # for the journal, which may be large
    systemd.wait_for(b"READY=1")
    assert systemd.wait_for(b"STATUS=").endswith(b": 0 running, 0 waiting")
    os.kill(node.pid, signal.SIGHUP)
    assert int(systemd.wait_for(b"RELOADING=1\nMONOTONIC_USEC=").split(b"=")[-1]) > 0
    systemd.wait_for(b"READY=1")
    line = node.wait_log("reloaded")
    assert line["changed"] == {"limits.client_jobs": 1}
    assert line["needs_restart"] == ["engine.slots", "engine.context_max", "mqtt.password_file"]
    node.wait_event("reloaded")
    held = node.wait_health(since=node.watcher.mark)
    assert (held["context"], held["heat"]["slots"]) == (2048, 2), (
        "heat goes by what the engine was loaded with"
    )
    asking = device(broker, "reload-dev")
    asking.wait_reply(asking.ask(SHORT), "accepted")
    assert asking.answer(asking.ask("x")).check().last["details"]["limit"] == 1
    node.config.write_text(good.replace("client_jobs = 4", "client_jobs = 0"))
    os.kill(node.pid, signal.SIGHUP)
    systemd.wait_for(b"RELOADING=1")
    systemd.wait_for(b"READY=1")
    failed = node.wait_log("reload_failed")
    assert "limits.client_jobs" in failed["reason"]
    assert node.running
    node.wait_info(lambda info: info["limits"]["client_jobs"] == 1)
    held = asking.ask("tokens=400 step_ms=20")
    while not systemd.wait_for(b"STATUS=").endswith(b": 1 running, 0 waiting"):
        pass  # each health brings one
    asking.control("cancel", held)
    systemd.close()
