"""What the role `broker` makes of an inventory, by its filters alone; with Ansible: test_broker_accounts.py."""

from __future__ import annotations

import ast
import importlib.util
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_rig import ANSIBLE
from jinja2.sandbox import ImmutableSandboxedEnvironment

NO_TLS = {"ca": "no", "cert": "no", "key": "no"}


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    """The role's own file."""
    file = ANSIBLE / "roles/broker/filter_plugins/edged_broker.py"
    spec = importlib.util.spec_from_file_location("edged_broker", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def boards(**prefixes: str | None) -> list[dict[str, Any]]:
    """An inventory's boards, with the `node.prefix` of each."""
    settings = {name: {} if prefix is None else {"prefix": prefix} for name, prefix in prefixes.items()}
    return [{"inventory_hostname": name, "edged_settings": {"node": node}} for name, node in settings.items()]


def test_prefix_of_the_boards(filters: ModuleType) -> None:
    """The ACL is made for the topics that the boards have, without a second word on it in the inventory."""
    assert filters.edged_prefix(filters.edged_nodes(boards(n1="plant/2", n2="plant/2"))) == "plant/2"
    assert filters.edged_prefix(filters.edged_nodes(boards(n1=None))) == "edged"
    assert filters.edged_prefix([]) == "edged"


def test_boards_that_the_acl_would_shut_out(filters: ModuleType) -> None:
    """Mosquitto tells nobody: the node would be online nowhere, and no question would reach it."""
    nodes = [*filters.edged_nodes(boards(n1="plant", n2=None)), {"name": "by-hand"}]
    said = filters.edged_wrong(NO_TLS, nodes, {}, (), (8883,), prefix="plant")
    assert [line.partition(";")[0] for line in said if "prefix" in line] == [
        "n2 has node.prefix edged, and the ACL is made for plant: it would let that board do nothing"
    ]


def test_ports_stay_numbers(filters: ModuleType) -> None:
    """Ansible before 2.19 makes text of each value, and of a number that stands by itself it stays text."""
    told = yaml.safe_load((ANSIBLE / "roles/broker/vars/main.yml").read_text())["broker_ports"]
    given = {"broker_password_port": 8883, "broker_certificate_port": "8884", "broker_local_port": 0}
    ports = ast.literal_eval(ImmutableSandboxedEnvironment().from_string(told).render(given))
    assert ports == {"password": 8883, "certificate": 8884, "local": 0}
    said = filters.edged_wrong(NO_TLS, [], {}, (), ports.values(), prefix="edged")
    assert not [line for line in said if "port" in line]
