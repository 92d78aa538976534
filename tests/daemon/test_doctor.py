"""`edged doctor` as a command: with and without settings, beside a running daemon, against brokers of all kinds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from boards import pi5, rk3588_mainline, set_temp_c, tree
from broker import Mosquitto
from certificates import Authority
from daemon_process import DaemonProcess, MakeDaemon
from device import MakeDevice
from secured import ShippedBroker

from edged.client.local import order

WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


def doctor(
    *words: str, config: Path | None = None, wrapper: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run it without a terminal."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDGED_")}
    command = [
        *wrapper,
        sys.executable,
        "-m",
        "edged",
        "doctor",
        *(["--config", str(config)] if config else []),
        *words,
    ]
    return subprocess.run(
        command,
        env=environment | {"COLUMNS": "80"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def checks(
    *words: str, config: Path | None = None, wrapper: Sequence[str] = (), **variables: str
) -> dict[str, dict[str, Any]]:
    """Its verdicts by name, the worst of each name; the exit code agrees with them."""
    ended = doctor("--json", *words, config=config, wrapper=wrapper, **variables)
    told = json.loads(ended.stdout)
    assert ended.returncode == ["ok", "warning", "failure"].index(told["state"]), ended.stderr
    order = ["ok", "unknown", "warning", "failure"]
    found: dict[str, dict[str, Any]] = {}
    for check in sorted(told["checks"], key=lambda check: order.index(check["state"])):
        found[check["name"]] = check
    return found


@pytest.fixture
def node(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> DaemonProcess:
    """A node with the real model, not started."""
    node = daemon(broker, {"model": {"path": str(small_model)}}, scripted=True)
    (node.config.parent / "state").mkdir()
    return node


def test_layers_without_a_gpu(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> None:
    """Where the settings put layers on a GPU and llama.cpp finds none, it warns."""
    engine = {"gpu_layers": 99}
    node = daemon(broker, {"model": {"path": str(small_model)}, "engine": engine}, scripted=True)
    found = checks(config=node.config, GGML_VK_VISIBLE_DEVICES="", CUDA_VISIBLE_DEVICES="")["gpu"]
    assert found["state"] == "warning"
    assert "the CPU computes all layers" in found["words"]
    node = daemon(broker, {"model": {"path": str(small_model)}}, scripted=True)
    hidden = checks(config=node.config, GGML_VK_VISIBLE_DEVICES="", CUDA_VISIBLE_DEVICES="")
    assert "gpu" not in hidden


def test_without_settings() -> None:
    """What needs none is looked at: board, llama.cpp, clock, service; nothing fails for their lack."""
    ended = doctor()
    assert ended.returncode in {0, 1}, ended.stdout
    for word in ("board", "cores", "llama.cpp", "settings", "clock", "service"):
        assert word in ended.stdout
    assert "\x1b" not in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_a_node_that_is_down(node: DaemonProcess) -> None:
    """The broker takes the credentials, the model is whole, its hash is offered, and the daemon is missed."""
    found = checks(config=node.config)
    assert found["broker"]["state"] == "ok"
    assert "takes our credentials" in found["broker"]["words"]
    assert found["model"]["state"] == "ok"
    assert found["format"]["state"] == "ok"
    assert found["memory"]["state"] == "ok"
    assert "sha256 = " in found["hash"]["mend"]
    assert found["daemon"]["state"] == "warning"
    assert found["disk"]["state"] == "ok"
    assert found["TLS"]["state"] == "ok"
    given = f"--config {node.config}"
    assert found["calibration"]["mend"] == f"edged calibrate {given}"
    assert found["daemon"]["mend"] == f"edged run {given}"


def test_beside_a_running_daemon(node: DaemonProcess, device: MakeDevice, broker: Mosquitto) -> None:
    """The daemon keeps its connection and its session: nobody logs in under its name."""
    node.start()
    found = checks("--quick", config=node.config)
    assert str(node.pid) in found["daemon"]["words"]
    assert "the running daemon uses" in found["broker"]["words"]
    asking = device(broker, "c1")
    asking.answer(asking.ask("tokens=3")).check()
    assert node.log("mqtt_disconnected") == []


def test_questions_that_wait_for_a_node_stay(
    node: DaemonProcess, device: MakeDevice, broker: Mosquitto
) -> None:
    """Looking while the node is down costs no question that the broker keeps for it."""
    node.start()
    node.terminate()
    asking = device(broker, "c1")
    jobs = [asking.ask(f"tokens={number}") for number in (2, 3, 4)]
    assert "takes our credentials" in checks("--quick", config=node.config)["broker"]["words"]
    node.start()
    for job in jobs:
        asking.answer(job).check()


def test_beside_a_daemon_that_hangs(node: DaemonProcess) -> None:
    """It holds its journal and its connection, answers nobody, and all was well."""
    node.start()
    os.kill(node.pid, signal.SIGSTOP)
    found = checks("--quick", config=node.config)["daemon"]
    os.kill(node.pid, signal.SIGCONT)
    assert (found["state"], "answers nothing" in found["words"]) == ("failure", True)


def test_beside_a_daemon_that_answers_no_question(
    broker: Mosquitto, daemon: MakeDaemon, small_model: Path, tmp_path: Path
) -> None:
    """Its model is whole and of a kind that this llama.cpp does not know, and somebody drained it: all was well."""
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(small_model.read_bytes().replace(b"llama", b"llamX"))
    node = daemon(broker, {"model": {"path": str(odd)}}).launch()
    node.wait_log("model_failed")
    control = node.config.parent / "state/control.sock"
    order(control, "drain")
    found = checks("--quick", config=node.config)
    assert found["model"]["state"] == "ok"
    assert (found["engine"]["state"], "architecture: 'llamX'" in found["engine"]["mend"]) == ("failure", True)
    assert (found["daemon"]["state"], found["daemon"]["mend"]) == ("warning", "edged undrain")
    told = subprocess.run(
        [sys.executable, "-m", "edged", "status", "--socket", control],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "engine failed (" in told.stdout
    odd.unlink()
    found = checks("--quick", config=node.config)
    assert (found["model"]["state"], "engine" in found) == ("failure", False)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippedBroker]:
    """The shipped configuration with TLS, passwords and certificates."""
    broker = ShippedBroker(tmp_path_factory.mktemp("shipped")).start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("by_certificate", [False, True])
def test_tls(shipped: ShippedBroker, daemon: MakeDaemon, small_model: Path, by_certificate: bool) -> None:  # noqa: FBT001 - a parameter
    """Password and certificate are taken; the certificates here end tomorrow, which is soon."""
    sections = {
        **shipped.mqtt_section("n1", by_certificate=by_certificate),
        "model": {"path": str(small_model)},
    }
    found = checks("--quick", config=daemon(shipped, sections).config)
    assert "takes our credentials" in found["broker"]["words"], found["broker"]
    assert found["certificate"]["state"] == "warning"
    assert "days left" in found["certificate"]["words"]


def test_a_wrong_password(shipped: ShippedBroker, daemon: MakeDaemon, tmp_path: Path) -> None:
    """It is told as what it is, without the password."""
    (tmp_path / "password").write_text("not-the-word\n")
    section = shipped.mqtt_section("n1")
    section["mqtt"]["password_file"] = str(tmp_path / "password")
    ended = doctor("--json", "--quick", config=daemon(shipped, section).config)
    assert ended.returncode == 2
    [broker] = [check for check in json.loads(ended.stdout)["checks"] if check["name"] == "broker"]
    assert broker["state"] == "failure"
    assert "mosquitto_passwd" in broker["mend"]
    assert "not-the-word" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("line", "words", "mend"),
    [
        ("max_qos 0", "QoS not supported", "max_qos"),
        ("retain_available false", "Retain not supported", "retain_available"),
    ],
)
def test_a_broker_that_lacks_what_nodes_need(
    daemon: MakeDaemon, tmp_path: Path, line: str, words: str, mend: str
) -> None:
    """It refuses the daemon for it, and took the doctor in, who has no last will."""
    lacking = Mosquitto(tmp_path, f"{line}\n").start()
    try:
        found = checks("--quick", config=daemon(lacking).config)["broker"]
    finally:
        lacking.kill()
    assert found["state"] == "failure"
    assert words in found["words"]
    assert mend in found["mend"]


def test_a_certificate_that_the_broker_does_not_take(
    shipped: ShippedBroker, daemon: MakeDaemon, tmp_path: Path
) -> None:
    """With TLS 1.3 it says so after the handshake: it was an "Unspecified error" of a broker to be started."""
    section = shipped.mqtt_section("n1", by_certificate=True)
    pair = Authority(tmp_path).client("n1")
    section["mqtt.tls"] |= {"cert": str(pair.cert), "key": str(pair.key)}
    found = checks("--quick", config=daemon(shipped, section).config)["broker"]
    assert found["state"] == "failure"
    assert "mqtt.tls.cert" in found["mend"]
    assert "start the broker" not in found["mend"]


def test_beside_a_daemon_that_is_not_taken_in(
    shipped: ShippedBroker, daemon: MakeDaemon, small_model: Path, tmp_path: Path
) -> None:
    """Its broker was well while it could be reached: now why it refuses, and once mended, what is left to do."""
    section = shipped.mqtt_section("n1") | {"model": {"path": str(small_model)}}
    password = tmp_path / "password"
    password.write_text("not-the-word\n")
    right, section["mqtt"]["password_file"] = section["mqtt"]["password_file"], str(password)
    node = daemon(shipped, section, scripted=True).launch()
    node.wait_log("mqtt_failed")
    found = checks("--quick", config=node.config)["broker"]
    assert found["state"] == "failure"
    assert "Not authorized" in found["words"]
    password.write_text(Path(right).read_text())
    found = checks("--quick", config=node.config)["broker"]
    assert found["state"] == "failure"
    assert "the running daemon is not connected" in found["words"]
    assert "restart edged" in found["mend"]
    assert node.log("mqtt_connected") == []
    assert node.terminate() == 0
    node.launch().wait_log("mqtt_connected")
    assert "the running daemon uses" in checks("--quick", config=node.config)["broker"]["words"]


def test_no_broker(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """Nothing listens, or something that speaks no TLS: a sentence and what mends it."""
    node = daemon(broker, {"mqtt": {"port": 1}})
    assert "nothing listens" in checks("--quick", config=node.config)["broker"]["words"]
    pem = tmp_path / "ca.pem"
    pem.write_text("no certificate\n")
    node = daemon(broker, {"mqtt.tls": {"ca": str(pem)}})
    found = checks("--quick", config=node.config)
    assert found["broker"]["state"] == "failure"
    assert str(pem) in found["broker"]["words"]


def test_another_program_has_the_port(daemon: MakeDaemon, broker: Mosquitto) -> None:
    """The daemon would wait for it, and does not run: nobody else told. A model that is not there is told once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        http = {"enabled": True, "port": other.getsockname()[1]}
        found = checks("--quick", config=daemon(broker, {"http": http}).config)
    assert (found["http"]["state"], str(http["port"]) in found["http"]["mend"]) == ("warning", True)
    assert (found["model"]["state"], "settings" in found) == ("failure", False)


def test_what_is_broken(daemon: MakeDaemon, broker: Mosquitto, small_model: Path, tmp_path: Path) -> None:
    """A cut model, a wrong hash or template, a board in trouble are failures and warnings with their mends."""
    model, template = tmp_path / "cut.gguf", tmp_path / "t.jinja"
    model.write_bytes(small_model.read_bytes()[:-100_000])
    template.write_text("{{ bogus")
    root = rk3588_mainline(tmp_path / "board")
    tree.put(root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave\n")
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    files = {"path": str(model), "chat_template": str(template)}
    node = daemon(broker, {"model": files | {"sha256": "0" * 64}, "paths": paths})
    found = checks(config=node.config)
    assert found["model"]["state"] == "failure"
    assert found["hash"]["state"] == "failure"
    assert found["template"]["state"] == "failure"
    assert found["template"]["words"].startswith(f"{template}: ")
    assert found["clocks"]["state"] == "warning"
    assert "Radxa ROCK 5B" in found["board"]["words"]


def test_by_somebody_beside_the_service(node: DaemonProcess, tmp_path: Path) -> None:
    """Systemd keeps the state where only root may look: what others cannot be told is no fault of the node's."""
    state = node.config.parent / "state"
    closed = tmp_path / "private"
    closed.mkdir()
    (closed / "state").mkdir()
    state.rmdir()
    state.symlink_to(closed / "state")
    closed.chmod(0)
    wrapper = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()
    found = checks("--quick", config=node.config, wrapper=wrapper)
    closed.chmod(0o700)
    for name in ("disk", "daemon", "calibration"):
        assert found[name]["state"] == "unknown", name
        assert "sudo edged doctor" in found[name]["words"]


def test_a_raspberry_pi_near_its_firmware_s_trip(
    daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path
) -> None:
    """No kernel tells that a Pi slows down at 80 C: the doctor knows, as the daemon does."""
    root = pi5(tmp_path / "board")
    set_temp_c(root, "cpu-thermal", 78.0)
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    found = checks("--quick", config=daemon(broker, {"paths": paths}).config)
    assert found["heat"]["state"] == "warning"
    assert "2.0 C below its passive trip of 80.0 C" in found["heat"]["words"]
    assert found["trips"]["words"] == "cpu: passive 80, passive 85, critical 110 C"


def test_wrong_settings(tmp_path: Path) -> None:
    """A file that is refused is a failure, and the rest is still looked at."""
    (tmp_path / "e.toml").write_text("[engine]\nslots = 0\n")
    found = checks("--quick", config=tmp_path / "e.toml")
    assert found["settings"]["state"] == "failure"
    assert found["board"]["state"] == "ok"


def test_what_would_end_the_start(broker: Mosquitto, daemon: MakeDaemon, small_model: Path) -> None:
    """Settings that are accepted and do not fit this machine: what `edged run` would end with is said before."""
    ill: dict[str, Any] = {
        "model": {"path": str(small_model)},
        "engine": {"decode_threads": 200},
        "http": {"enabled": True, "key_file": "none"},
        "tools": {"enabled": ["none"]},
    }
    node = daemon(broker, ill, scripted=True)
    ended = doctor("--quick", "--json", config=node.config)
    bad = [one for one in json.loads(ended.stdout)["checks"] if one["state"] in {"warning", "failure"}]
    words = " ".join(one["words"] for one in bad)
    assert "decode_threads is 200, but the engine is pinned to" in words
    assert "http.key_file: " in words
    assert "there is no tool none; installed are " in words


def test_who_may_lower_a_cap(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """The service's group, by the unit, and not the account that asks: that was a warning on each board."""
    root = rk3588_mainline(tmp_path / "board")
    cap = root / "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    paths, cores = {"sys": str(root / "sys"), "proc": str(root / "proc")}, sorted(os.sched_getaffinity(0))
    tree.put(cap.parent / "affected_cpus", f"{','.join(map(str, cores))}\n")
    node = daemon(broker, {"paths": paths, "engine": {"cores": str(cores[0])}})
    wrapper = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()
    for mode, state in ((0o444, "warning"), (0o464, "ok")):
        cap.chmod(mode)
        assert checks("--quick", config=node.config, wrapper=wrapper)["clock caps"]["state"] == state


def test_whose_cap_it_is(daemon: MakeDaemon, broker: Mosquitto, tmp_path: Path) -> None:
    """A note is left of caps that edged lowered once: what another holds down now is not told as edged's."""
    root = rk3588_mainline(tmp_path / "board")
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    policy = root / "sys/devices/system/cpu/cpufreq/policy0"
    tree.put(policy / "affected_cpus", f"{cores}\n")
    tree.put(policy / "scaling_max_freq", "1200000\n")
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    node = daemon(broker, {"paths": paths, "engine": {"cores": cores}})
    state = node.config.parent / "state"
    state.mkdir()
    for note, verdict in (("policy0=1800000000", "ok"), ("policy0=1200000000", "warning")):
        (state / "clocks").write_text(f"{tree.BOOT_ID} {note}\n")
        assert checks("--quick", config=node.config)["clocks"]["state"] == verdict
    (state / "clocks").write_text("another-boot policy0=1800000000\n")
    assert checks("--quick", config=node.config)["clocks"]["state"] == "warning"
