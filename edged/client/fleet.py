"""What nodes say of themselves, as values: from the retained topics and the events to one view a node. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from edged.core.news import Health, Info
from edged.errors import DECODE_ERRORS

_Shape = TypeVar("_Shape", Info, Health)

FRESH_S = 60.0
"""A node that is `offline` and said longer ago how it is does not live; the broker drops old health too."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the broker's retained messages show it.

    Attributes:
        name: the node's id.
        status: `online`, `offline`, or `unknown` for a node that never said.
        info, health: what it said; None where it said nothing, or nothing that can be read.
        health_age_s: seconds since its health came here.
        as_told: `info` and `health` as they came, also what a newer node tells beyond these shapes.
    """

    name: str
    status: str = "unknown"
    info: Info | None = None
    health: Health | None = None
    health_age_s: float | None = None
    as_told: dict[str, Any] = field(default_factory=dict)

    @property
    def starting(self) -> bool:
        """It is there and loads its model: `online` it says once that is done, and takes questions before."""
        if self.status == "unknown":
            return self.info is not None
        fresh = self.health_age_s is not None and self.health_age_s < FRESH_S
        return (
            self.status == "offline"
            and fresh
            and self.health is not None
            and self.health.engine == "starting"
        )

    @property
    def hottest(self) -> tuple[str, float, float | None] | None:
        """The zone nearest to its throttling: name, degrees, that trip (None where it has none)."""
        if self.health is None:
            return None
        found = [
            (name, zone.temp_c, min((t.temp_c for t in zone.trips if t.kind == "passive"), default=None))
            for name, zone in self.health.board.zones.items()
            if zone.temp_c is not None
        ]
        return max(found, key=lambda one: (one[2] is not None, one[1] - (one[2] or 0.0)), default=None)

    def as_json(self) -> dict[str, Any]:
        """For programs: what is known, as on the wire."""
        return {"node": self.name, "status": self.status, **self.as_told}


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a node: its name, and what else it says."""

    node: str
    event: str
    fields: dict[str, Any]


def views(
    prefix: str, latest: Mapping[str, bytes], heard_at: Mapping[str, float], now: float
) -> list[NodeView]:
    """One view a node, by name.

    Args:
        prefix: first level of the topics.
        latest: the last payload of each topic.
        heard_at: when each came, in the clock of `now`.
        now: seconds, of any monotonic clock.
    """
    head = f"{prefix}/v1/node/"
    said: dict[str, dict[str, bytes]] = {}
    for topic, payload in latest.items():
        name, _, what = topic.removeprefix(head).partition("/")
        if topic.startswith(head) and what in {"status", "info", "health"}:
            said.setdefault(name, {})[what] = payload
    return [_view(name, said[name], now, heard_at.get(f"{head}{name}/health")) for name in sorted(said)]


def happened(prefix: str, topic: str, payload: bytes) -> Happened | None:
    """The event that a message tells; None for another message, or one that cannot be read."""
    head, tail = f"{prefix}/v1/node/", "/event"
    if not topic.startswith(head) or not topic.endswith(tail):
        return None
    try:
        fields = msgspec.json.decode(payload, type=dict[str, Any])
    except DECODE_ERRORS:
        return None
    name = topic.removeprefix(head).removesuffix(tail)
    fields.pop("node", None)
    return Happened(name, str(fields.pop("event", "unknown")), fields)


def _view(name: str, said: Mapping[str, bytes], now: float, health_at: float | None) -> NodeView:
    as_info, info = _read(said.get("info"), Info)
    as_health, health = _read(said.get("health"), Health)
    as_told = {"info": as_info, "health": as_health}
    return NodeView(
        name,
        said.get("status", b"unknown").decode("ascii", "replace"),
        info,
        health,
        None if health_at is None else now - health_at,
        {what: told for what, told in as_told.items() if told is not None},
    )


def _read(payload: bytes | None, shape: type[_Shape]) -> tuple[Any, _Shape | None]:
    """As it came, and as a value: neither where it is no JSON, no value where a newer node says it otherwise.

    All of it is read: what the shape does not name would be passed over, and not be JSON for whoever shows it.
    """
    told = None
    try:
        told = msgspec.json.decode(b"null" if payload is None else payload)
        return told, None if told is None else msgspec.convert(told, shape)
    except DECODE_ERRORS:
        return told, None
