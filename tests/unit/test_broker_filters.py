"""What the role `broker` makes of an inventory, by its filters alone; with Ansible: test_broker_accounts.py."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
from ansible_rig import ANSIBLE

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
