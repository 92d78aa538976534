"""What the node says of itself, and when: info as it changes, health at each interval, a line for systemd.

Belongs to the dispatcher thread. The contents are `news`'s, the messages `bulletin`'s, the metrics `meter`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edged.core import records
from edged.core.vitals import Vitals, as_health
from edged.node import news
from edged.node.admin import Admin
from edged.node.bulletin import Bulletin
from edged.node.desk import Desk
from edged.node.feeding import Watchdog
from edged.node.heat import Thermostat
from edged.node.meter import Meter
from edged.node.outbox import Outbox
from edged.node.pools import Membership
from edged.node.speed import Speed
from edged.node.supervision import Supervision

HEALTH_SLACK_S = 0.1
"""Health goes out with a reading of the board; one that comes a little early is not left for the next."""


@dataclass(slots=True)
class Telling:
    """All that is told, and what of it was told last.

    Attributes:
        systemd: is told when the node answers, and what it does.
        about: who this node is, as far as it is known without the engine; the start of `info`.
        journal_depth: counters of the journal, for health.
        memory: resident bytes of both processes, for health.
        vitals: of the board, as last read.
    """

    desk: Desk
    outbox: Outbox
    supervision: Supervision
    thermostat: Thermostat
    bulletin: Bulletin
    membership: Membership
    admin: Admin
    systemd: Watchdog
    about: dict[str, Any]
    journal_depth: Callable[[], records.Depth]
    memory: Callable[[], dict[str, int]]
    meter: Meter = field(default_factory=Meter)
    speed: Speed = field(default_factory=Speed)
    clock: Callable[[], float] = time.monotonic
    vitals: Vitals = field(default_factory=Vitals)
    _started: float = field(default_factory=time.monotonic)
    _told_at: float = -math.inf
    _told_reasons: tuple[str, ...] = ()

    def online(self) -> None:
        """The node answers, if only by errors."""
        self.bulletin.go_online()
        self.systemd.ready()
        self.health()

    def info(self) -> None:
        """Say who this node is, where that has changed."""
        self.bulletin.tell_info(news.info(self.about, self.supervision, self.membership))

    def pools(self) -> None:
        """The broker has said something of the pools."""
        self.info()
        self.health()

    def reasons(self) -> None:
        """Say why the node is out of its pools; that changes also where the broker has nothing to say."""
        if self.membership.reasons != self._told_reasons:
            self._told_reasons = self.membership.reasons
            if self.bulletin.info:
                self.info()

    def read(self, vitals: Vitals, *, changed: bool) -> None:
        """The board was read; `changed`: its level is another than it was."""
        self.vitals = vitals
        clocks = self.thermostat.clocks.about()
        if clocks != self.about.get("clocks"):
            self.about["clocks"] = clocks
            self.info()  # for the first time with the first reading: a model may take minutes to load
        if changed or self.clock() - self._told_at >= self.bulletin.interval_s - HEALTH_SLACK_S:
            self.health()

    def health(self) -> None:
        """Say how the node is; the metrics are made of the same."""
        if self.bulletin.online:
            self._status_line()
        self._told_at = self.clock()
        verdict = self.thermostat.verdict
        health = {
            "level": self.thermostat.level,
            "reason": "" if verdict is None else verdict.reason,
            "uptime_s": round(self.clock() - self._started),
            **news.work(self.desk, self.supervision),
            **news.pools(self.membership),
            **self.speed.health(),
            **({"draining": True} if self.admin.draining else {}),
            "journal": news.journal(self.journal_depth()),
            "memory": self.memory(),
            "heat": self.thermostat.as_json(),
            "board": as_health(self.vitals),
        }
        self.bulletin.tell_health(health)
        info = news.info(self.about, self.supervision, self.membership)
        replies = self.desk.replies
        online = self.bulletin.online and replies.line.connected
        interval_s = self.bulletin.interval_s
        self.meter.tell(info, health, replies.latencies, online=online, interval_s=interval_s)

    def status(self) -> dict[str, Any]:
        """Where the node stands, for an operator on this machine."""
        return {
            "node": self.about["node"],
            "version": self.about["version"],
            "online": self.bulletin.online,
            "connected": self.desk.replies.line.connected,
            "draining": self.admin.draining,
            "idle": self.admin.idle,
            "jobs": len(self.desk.roster),
            "running": self.desk.running,
            "outbox": len(self.outbox),
            "engine": self.supervision.phase,
            "reason": self.supervision.reason,
            "model": self.desk.course.model,
            "level": self.thermostat.level,
            "disk": self.journal_depth().failing,
            **news.pools(self.membership),
        }

    def _status_line(self) -> None:
        """For `systemctl status edged`: whether somebody who updates the board would interrupt an answer."""
        running, jobs = self.desk.running, len(self.desk.roster)
        doing = (
            "draining"
            if self.admin.draining
            else self.supervision.reason or f"ready, {self.desk.course.model}"
        )
        self.systemd.status(f"{doing}: {running} running, {jobs - running} waiting")
