"""From one version to the next and back: nothing is lost, and a release that does not answer is put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from board_rig import ANSWER_S, BROKEN, FILES_URL, FIRST, NEXT, SETTINGS, Board
from device import Device

pytestmark = pytest.mark.board

EVERY_S = 20.0


@pytest.fixture
def first(board: Board) -> Board:
    """The board with the first release in use."""
    return at(board, FIRST)


@pytest.fixture
def second(board: Board) -> Board:
    """The board with the second release in use, and the first before it."""
    return at(at(board, FIRST) if not board.version() else board, NEXT)


def at(board: Board, version: str) -> Board:
    """The board with this release in use: most times it is, from the test before."""
    if board.version() != version:
        ended = board.play("site.yml", version)
        assert ended.code == 0, ended.text
    return board


def told_only(board: Board, playbook: str, version: str) -> None:
    """Check mode names what would change, and changes nothing: neither a file nor the process."""
    look = "sha256sum /etc/edged/* /etc/systemd/system/edged.service; ls -lR /opt/edged | sha256sum"
    before, pid = board.ssh(look), board.daemon_pid()
    with board.step(f"`{playbook} --check`: nothing is touched"):
        ended = board.play(playbook, version, "--check")
        assert ended.code == 0, ended.text
        assert "changed=0 " not in ended.text, ended.text
        assert (board.ssh(look), board.daemon_pid()) == (before, pid)


@contextmanager
def asking(device: Device, ids: list[str]) -> Iterator[None]:
    """Have a device ask again and again, as long as the block runs."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(EVERY_S):
            ids.append(device.ask("Say yes.", max_tokens=4))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_model_with_another_sum(first: Board) -> None:
    """By URL, wrong SHA-256: refused before a release is installed or the node is touched."""
    pid = first.daemon_pid()
    releases = first.ssh("ls /opt/edged/releases")
    first.serve_files()  # a reboot ended it
    with first.step("model by URL with another SHA-256: refused, the node untouched"):
        model = {"file": "other.gguf", "url": f"{FILES_URL}/other.gguf", "sha256": "1" * 64, "size_mb": 1}
        ended = first.play("site.yml", NEXT, edged_model=model)
        assert ended.code != 0
        assert "look which one is right" in ended.text
    assert first.daemon_pid() == pid
    assert first.version() == FIRST
    assert first.ssh("ls /opt/edged/releases") == releases
    assert "other.gguf" not in first.ssh("ls /opt/edged/models")


def test_an_update_loses_no_question(first: Board) -> None:
    """A device asks all the while: each question is answered, or told that this node drains."""
    device = first.device("update")
    asked: list[str] = []
    try:
        with first.step(f"`update.yml` {FIRST} to {NEXT} while a device asks"), asking(device, asked):
            ended = first.play("update.yml", NEXT)
            assert ended.code == 0, ended.text
        assert first.version() == NEXT
        ends = [device.answer(one, ANSWER_S).check().last for one in asked]
    finally:
        device.stop()
    told = [end for end in ends if end["type"] != "done"]
    assert all(end.get("code") == "draining" for end in told), told
    with first.step(
        f"of {len(ends)} questions {len(ends) - len(told)} answered, {len(told)} told `draining`"
    ):
        assert len(told) < len(ends)


def test_a_release_that_does_not_run_is_put_back(second: Board) -> None:
    """update.yml fails with a sentence, and the node answers as before."""
    with second.step(f"`update.yml` to a release that ends when it is started: back at {NEXT}, answers"):
        ended = second.play("update.yml", BROKEN, edged_gate_tries=10)
        assert ended.code != 0
        assert f"The node is back at {NEXT} and answers" in ended.text, ended.text
        assert second.version() == NEXT
        second.asked()


@pytest.mark.parametrize("playbook", ["update.yml", "drain.yml", "rollback.yml"])
def test_check_mode(installed: Board, playbook: str) -> None:
    """Of each playbook that touches a running node; update.yml would go to one that does not run."""
    told_only(installed, playbook, BROKEN)


def test_back_to_the_release_before(second: Board) -> None:
    """rollback.yml."""
    with second.step(f"`rollback.yml` {NEXT} to {FIRST}"):
        ended = second.play("rollback.yml", NEXT)
        assert ended.code == 0, ended.text
    assert second.version() == FIRST
    second.asked()


def test_a_way_back_that_does_not_answer(installed: Board) -> None:
    """The settings kept for the release before name a broker that is not there: the node stays where it is."""
    now = installed.version()
    kept = f"/etc/edged/edged.toml.{NEXT if now == FIRST else FIRST}"
    installed.ssh(f"cp {kept} /root/kept.toml; printf '\\n[mqtt]\\nport = 1999\\n' >> {kept}")
    try:
        with installed.step(f"`rollback.yml` to a release that does not answer: back at {now}, answers"):
            ended = installed.play("rollback.yml", now, edged_gate_tries=5)
            assert ended.code != 0
            assert f"The node is back at {now} and answers" in ended.text, ended.text
    finally:
        installed.ssh(f"mv /root/kept.toml {kept}")
    assert installed.version() == now
    installed.asked()


def test_settings_that_do_not_answer_are_put_back(installed: Board) -> None:
    """The same release with a broker that is not there, and a secret it had not: both are taken back."""
    before = installed.ssh("sha256sum /etc/edged/edged.toml")
    settings = SETTINGS | {"mqtt": {"port": 1999, "username": "x", "password_file": "mqtt_password"}}
    with installed.step("`site.yml` with a broker that is not there: the settings from before, answers"):
        ended = installed.play(
            "site.yml",
            installed.version(),
            edged_settings=settings,
            edged_secrets={"mqtt_password": "the-password"},
            edged_gate={"max_tokens": 4, "port": 1883, "timeout_s": 30},
            edged_gate_tries=5,
        )
        assert ended.code != 0
        assert f"The node is back at {installed.version()} and answers" in ended.text, ended.text
    assert installed.ssh("sha256sum /etc/edged/edged.toml") == before
    assert "mqtt_password" not in installed.ssh("ls /etc/credstore")
    assert "the-password" not in ended.text


def test_another_model_sent_in_pieces(installed: Board) -> None:
    """From the machine that runs Ansible, under a name of its own: the node goes over to it."""
    sent = installed.model | {"file": "sent.gguf", "src": str(installed.model_file)}
    del sent["url"]
    with installed.step("`site.yml` with another model, sent in pieces: the node goes over to it"):
        ended = installed.play("site.yml", installed.version(), edged_model=sent)
        assert ended.code == 0, ended.text
    assert "sent.gguf" in installed.ssh("cat /etc/edged/edged.toml")
    installed.asked()


def test_drained_for_work_on_the_board(installed: Board) -> None:
    """drain.yml stops it; what is asked meanwhile waits at the broker, and is answered after the start."""
    device = installed.device("drained")
    try:
        with installed.step("`drain.yml`: stopped; a question asked meanwhile is answered after the start"):
            ended = installed.play("drain.yml", installed.version())
            assert ended.code == 0, ended.text
            assert installed.daemon_pid() == 0
            asked = device.ask("Say yes.", max_tokens=4)
            installed.ssh("systemctl start edged")
            assert device.answer(asked, ANSWER_S).last["type"] == "done"
    finally:
        device.stop()
