"""The role `broker` with a real systemd: TLS and accounts, the same when run again, put back when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_rig import Board
from certificates import Authority

pytestmark = pytest.mark.board

SAY = (
    "mosquitto_pub --cafile /etc/mosquitto/edged-tls/ca.pem -h localhost -p 8883 -V 5 -q 1 -u d1 -P {}"
    " -t edged/v1/node/board0/ask/d1 -m '{{}}' >/dev/null 2>&1; echo rc=$?"
)


@pytest.fixture
def with_its_broker(installed: Board) -> Iterator[Board]:
    """The board, whose own broker is back in the end: the other files here know no passwords."""
    installed.ssh("cp -a /etc/mosquitto /root/mosquitto.before")
    yield installed
    installed.ssh(
        "rm -rf /etc/mosquitto && mv /root/mosquitto.before /etc/mosquitto && systemctl restart mosquitto"
    )


def test_the_brokers_role(with_its_broker: Board, tmp_path: Path) -> None:
    """From Debian's Mosquitto to the contract's; a port that is taken leaves it as it was."""
    board, authority = with_its_broker, Authority(tmp_path)
    server = authority.server("DNS:localhost")
    values: dict[str, Any] = {
        "broker_tls": {
            "ca": authority.pem.read_text(),
            "cert": server.cert.read_text(),
            "key": server.key.read_text(),
        },
        "broker_accounts": {"d1": "the-d1-password"},
    }
    with board.step("`broker.yml`: TLS, accounts, ACL; a wrong password is refused"):
        ended = board.play("broker.yml", board.version(), **values)
        assert ended.code == 0, ended.text
        assert "rc=0" in board.ssh(SAY.format("the-d1-password"))
        assert "rc=0" not in board.ssh(SAY.format("another"))
    with board.step("`broker.yml` again: changed=0"):
        ended = board.play("broker.yml", board.version(), **values)
        assert ended.code == 0, ended.text
        assert re.search(r"changed=0 ", ended.text), ended.text
    with board.step("`broker.yml` with a port that is taken: put back, runs as before"):
        ended = board.play("broker.yml", board.version(), **values, broker_certificate_port=22)
        assert ended.code != 0
        assert "It runs as before" in ended.text, ended.text
        assert "rc=0" in board.ssh(SAY.format("the-d1-password"))
