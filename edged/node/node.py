"""The dispatcher: one thread, one inbox, every event handled to its end before the next one.

This is the daemon's main thread. It owns desk, intake, outbox, supervision and bulletin, none of which needs a
lock; other threads only put events into the inbox.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from edged.core import records
from edged.core.admission import Load
from edged.core.link import (
    Arrived,
    Connected,
    ConnectFailed,
    Delivered,
    Disconnected,
    Subscribed,
    ThreadDied,
    Undelivered,
    Unsubscribed,
)
from edged.core.upstream import Begun, Broke, Over, Said
from edged.core.vitals import Vitals
from edged.engine.client import EngineGone, EngineSaid
from edged.engine.messages import (
    Ended,
    LoadFailed,
    Log,
    Piece,
    Prepared,
    PromptsForgotten,
    Pulse,
    Ready,
    Refused,
    Report,
    Started,
)
from edged.errors import EdgedError
from edged.node import news
from edged.node.admin import Admin
from edged.node.bulletin import Bulletin
from edged.node.controls import Controls
from edged.node.desk import Desk
from edged.node.events import Event, LocalOrder, ReloadAsked, StopAsked
from edged.node.feeding import Feeding
from edged.node.heat import Thermostat
from edged.node.intake import Intake
from edged.node.meter import Meter
from edged.node.outbox import Outbox
from edged.node.pools import LOADING, Membership
from edged.node.speed import Speed
from edged.node.supervision import Supervision
from edged.node.vitals_thread import VitalsRead
from edged.tools.client import ToolsRan

TICK_S = 0.25
GRACE_S = 4.0
"""After a signal to end, answers that run may still finish for so long; the rest run again at the next start."""
HEALTH_SLACK_S = 0.1
"""Health goes out with a reading of the board; one that comes a little early is not left for the next."""
FLUSH_S = 2.0
"""How long the last messages may take to reach the broker."""

log = structlog.get_logger()


class DiedError(EdgedError):
    """A part of the daemon ended though nobody told it to; the process must start again."""


@dataclass(slots=True)
class Node:
    """All that the dispatcher thread owns.

    Attributes:
        inbox: events from everywhere.
        feeding: tells systemd how the node is.
        reload: reads the settings file again, and applies what can change.
        about: who this node is, as far as it is known without the engine; the start of `info`.
        journal_depth: counters of the journal, for health.
        link_beat: when the MQTT thread last went round.
        link_limit_s: how old that may be while the node counts as well.
    """

    inbox: queue.SimpleQueue[Event]
    desk: Desk
    intake: Intake
    controls: Controls
    outbox: Outbox
    supervision: Supervision
    thermostat: Thermostat
    bulletin: Bulletin
    membership: Membership
    admin: Admin
    reload: Callable[[], None]
    feeding: Feeding
    about: dict[str, Any]
    slots: int
    journal_depth: Callable[[], records.Depth]
    link_beat: Callable[[], float]
    link_limit_s: float
    daemon_rss: Callable[[], dict[str, int]]
    meter: Meter = field(default_factory=Meter)
    speed: Speed = field(default_factory=Speed)
    clock: Callable[[], float] = time.monotonic
    vitals: Vitals = field(default_factory=Vitals)
    _started: float = field(default_factory=time.monotonic)
    _told_at: float = -math.inf
    _told_reasons: tuple[str, ...] = ()

    def serve(self) -> int:
        """Handle events until a signal asks us to end; returns the signal's number.

        Raises:
            DiedError: a part of the daemon ended by itself.
        """
        while True:
            try:
                event = self.inbox.get(timeout=TICK_S)
            except queue.Empty:
                self._tick()
                continue
            if isinstance(event, StopAsked):
                return event.signal
            self.handle(event)
            self._tick()

    def finish(self) -> None:
        """The orderly end: no new questions, a grace for running answers, then what is owed to the broker."""
        self.membership.leave("stopping")  # so that the broker deals to others what it would keep for us
        self.intake.closed = True
        self.feeding.watchdog.stopping()
        log.info("stopping", running=self.desk.running, jobs=len(self.desk.roster))
        self._serve_until(self.clock() + GRACE_S, lambda: self.desk.running == 0)
        self.supervision.stopping = True
        # Jobs that are left stand in the journal; the engine's words about them no longer count.
        self._serve_until(
            self.clock() + FLUSH_S, lambda: not len(self.outbox) and not self.desk.roster.finishing
        )
        self.bulletin.go_offline()
        self._serve_until(
            self.clock() + FLUSH_S, lambda: self.bulletin.offline_told or not self.desk.replies.line.connected
        )

    def _serve_until(self, end: float, over: Callable[[], bool]) -> None:
        while not over() and (left := end - self.clock()) > 0:
            try:
                event = self.inbox.get(timeout=min(left, TICK_S))
            except queue.Empty:
                continue
            if not isinstance(event, StopAsked):
                self.handle(event)

    # events ---------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:  # noqa: C901, PLR0912 - one branch a kind of event, nothing else
        """Handle one event to its end."""
        match event:
            case EngineSaid(run, report):
                if run == self.supervision.run:
                    if not isinstance(
                        report, Prepared
                    ):  # that is the intake thread; the model thread may hang
                        self.supervision.heard()
                    self._engine_said(report)
            case Arrived():
                if not self.bulletin.discovery.hears(event):
                    self.intake.arrived(event)
            case Delivered():
                self.bulletin.delivered_one(event)
                refused = self.outbox.delivered_one(event)
                if refused is not None:
                    log.warning("reply_refused_by_broker", reason=refused)
            case Undelivered():
                self.outbox.undelivered_one(event)
            case Connected() | Disconnected() | ConnectFailed() | Subscribed() | Unsubscribed():
                self._broker_said(event)
            case Begun() | Said() | Over() | Broke():
                self.desk.hearing.away_said(event)
            case EngineGone():
                self._engine_gone(event)
            case ToolsRan():
                self.desk.hearing.tools_ran(event)
            case VitalsRead():
                self._vitals_read(event.vitals)
            case LocalOrder(payload, answer):
                self.admin.perform(payload, lambda result: answer(msgspec.json.encode(result)), "local")
            case ReloadAsked():
                self._reload()
            case ThreadDied(name, reason):
                raise DiedError(f"the {name} thread ended: {reason}")
            case StopAsked():
                pass  # `serve` and `finish` look for it themselves
            case _:
                self._journal_said(event)

    def _journal_said(self, event: records.JournalEvent) -> None:  # noqa: C901 - one branch a kind of event
        match event:
            case records.Finished():
                self.desk.kept(event)
                self.intake.unpark()
            case records.Entered():
                self.intake.entered(event)
            case records.Accepted():
                self.intake.accepted(event)
            case records.Duplicate():
                self.intake.duplicate(event)
            case records.Conflict():
                self.intake.conflict(event)
            case records.NotKnown():
                self.intake.not_known(event)
            case records.Failed():
                self.intake.failed(event)
            case records.StatusFound() | records.SessionForgotten():
                self.controls.found(event)
            case records.AttemptCounted():
                pass  # counted on disk; the desk counts for itself
            case records.Broken(reason):
                raise DiedError(f"the journal ended: {reason}")

    def _broker_said(
        self, event: Connected | Disconnected | ConnectFailed | Subscribed | Unsubscribed
    ) -> None:
        match event:
            case Connected(session_present):
                log.info("mqtt_connected", session_present=session_present)
                self.bulletin.connected()
                self.outbox.connected(session_present=session_present)
                self._tell_health()
            case Disconnected(reason):
                self.membership.disconnected()
                log.warning("mqtt_disconnected", reason=reason)
            case ConnectFailed(reason):
                log.warning("mqtt_failed", reason=reason)
            case Subscribed():
                if self.membership.subscribed(event):
                    self._tell_membership()
            case Unsubscribed():
                if self.membership.unsubscribed(event):
                    self._tell_membership()

    def _engine_said(self, report: Report) -> None:  # noqa: C901 - one branch a kind of report
        desk = self.desk
        match report:
            case Piece() | Prepared() | Started() | Refused():
                desk.hearing.engine_said(report)
            case Ended():
                self.supervision.answered()
                desk.hearing.engine_said(report)
            case PromptsForgotten():
                desk.forgetting.prompts_forgotten()
            case Pulse():
                self.supervision.pulse = report
                limits = self.supervision.limits
                usual = self.thermostat.level == "cool" and not self.thermostat.clocks.lowered
                self.speed.heard(report, limits, self.vitals, self.bulletin, usual=usual)
            case Ready() | LoadFailed() if self.supervision.replacing:
                pass  # its process is being ended for another one
            case Ready():
                self.supervision.became_ready(report)
                self.speed.loaded(measured=self.supervision.setup.step_s > 0)
                desk.engine_ready(report.model.name)
                self.membership.rejoin(LOADING)
                if self.supervision.reverted:
                    self.admin.model_failed(self.supervision.reverted)
                else:
                    self.admin.engine_ready(report.model.name)
                self.tell_info()
                self._go_online()
                self.bulletin.tell_event("engine_ready", model=report.model.name, load_s=report.load_s)
            case LoadFailed():
                self.supervision.load_failed(report)
                if self.supervision.replacing:
                    return  # the model before it comes back
                self.admin.model_failed(self.supervision.reverted or report.reason)
                self.tell_info()
                self._go_online()
                self.bulletin.tell_event("model_failed", reason=report.reason)
            case Log(severity, event, fields):
                getattr(log, severity)(event, **fields)

    def _engine_gone(self, event: EngineGone) -> None:
        if event.run != self.supervision.run:
            return
        was_ready = self.supervision.ready
        replaced = self.supervision.replacing
        self.supervision.gone(event)
        if self.supervision.stopping:
            return
        self.desk.engine_gone(crashed=not replaced)
        self.membership.leave(LOADING)
        if replaced:
            self.tell_info()
        elif was_ready or self.supervision.phase == "broken":
            self.bulletin.tell_event("engine_gone", reason=self.supervision.reason)
            self.tell_info()
        if self.supervision.phase == "broken":
            self.admin.model_failed(self.supervision.reverted or self.supervision.reason)
            self._go_online()

    def _vitals_read(self, vitals: Vitals) -> None:
        self.vitals = vitals = self.thermostat.heat.known(self.thermostat.clocks.without_ours(vitals))
        now = self.clock()
        changed = self.thermostat.read(vitals, now, busy=self.desk.running > 0)
        clocks = self.thermostat.clocks.about()
        if clocks != self.about.get("clocks"):
            self.about["clocks"] = clocks
            if self.bulletin.info:
                self.tell_info()
        self.desk.course.level = self.thermostat.level
        self.desk.calling.vitals = {"level": self.desk.course.level, **news.board(vitals)}
        self.intake.slots = self.thermostat.slots
        if changed or now - self._told_at >= self.bulletin.interval_s - HEALTH_SLACK_S:
            self._tell_health()

    # time -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.clock()
        self.supervision.tick()
        self.desk.expire(now)
        self.intake.tick(now)
        self.membership.look(self.intake.filling)
        self.admin.tick()
        if (
            self.membership.reasons != self._told_reasons
        ):  # they change also where the broker has nothing to say
            self._told_reasons = self.membership.reasons
            if self.bulletin.info:
                self.tell_info()
        well = now - self.link_beat() <= self.link_limit_s and self.supervision.healthy()
        self.feeding.tick(now, well=well, online=self.bulletin.online)

    def _reload(self) -> None:
        # Before `online` the start is not over for systemd, and READY=1 would end it.
        told = self.bulletin.online and self.feeding.watchdog.reloading()
        self.reload()
        self.tell_info()
        if told:
            self.feeding.watchdog.ready()

    def _go_online(self) -> None:
        self.bulletin.go_online()
        self.feeding.watchdog.ready()
        self._tell_systemd()

    # news -----------------------------------------------------------------------------------------------

    def tell_info(self) -> None:
        """Say who this node is, where that has changed."""
        self.bulletin.tell_info(news.info(self.about, self.supervision, self.membership))

    def _tell_membership(self) -> None:
        self.tell_info()
        self._tell_health()

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
            "model": self.desk.course.model,
            "level": self.thermostat.level,
            **news.pools(self.membership),
        }

    def _tell_systemd(self) -> None:
        """For `systemctl status edged`: whether somebody who updates the board would interrupt an answer."""
        running, jobs = self.desk.running, len(self.desk.roster)
        doing = (
            "draining"
            if self.admin.draining
            else self.supervision.reason or f"ready, {self.desk.course.model}"
        )
        self.feeding.watchdog.status(f"{doing}: {running} running, {jobs - running} waiting")

    def _tell_health(self) -> None:
        if self.bulletin.online:
            self._tell_systemd()
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
            "memory": self.daemon_rss(),
            "heat": self.thermostat.as_json(),
            "board": news.board(self.vitals),
        }
        self.bulletin.tell_health(health)
        info = news.info(self.about, self.supervision, self.membership)
        replies = self.desk.replies
        online = self.bulletin.online and replies.line.connected
        interval_s = self.bulletin.interval_s
        self.meter.tell(info, health, replies.latencies, online=online, interval_s=interval_s)

    def load(self, client_jobs: int) -> Load:
        """The node's load, for admission."""
        return Load(
            jobs=len(self.desk.roster),
            size_bytes=self.desk.roster.size_bytes,
            client_jobs=client_jobs,
            service_s=self.desk.hearing.service_s,
            slots=self.slots,
            engine=self.supervision.phase,
            reason=self.supervision.reason,
            shed=self.thermostat.shed,
            draining=self.admin.draining,
        )
