"""The dispatcher: one thread, one inbox, every event handled to its end before the next one.

This is the daemon's main thread. It owns all parts of a `Node`, none of which needs a lock; other threads only put
events into the inbox.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from edged.core import records
from edged.core.admission import Load
from edged.core.link import (
    STEADY_S,
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
from edged.core.vitals import Vitals, as_health
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
from edged.errors import DiedError
from edged.node.admin import Admin
from edged.node.bulletin import Bulletin
from edged.node.controls import Controls
from edged.node.desk import Desk
from edged.node.events import Event, LocalOrder, ReloadAsked, StopAsked
from edged.node.feeding import Feeding
from edged.node.heat import Thermostat
from edged.node.intake import Intake
from edged.node.lifecycle import Lifecycle
from edged.node.outbox import Outbox
from edged.node.pools import Membership
from edged.node.supervision import Supervision
from edged.node.telling import Telling
from edged.node.vitals_thread import VitalsRead
from edged.tools.client import ToolsRan

TICK_S = 0.25
GRACE_S = 4.0
"""After a signal to end, answers that run may still finish for so long; the rest run again at the next start."""
FLUSH_S = 2.0
"""How long the last messages may take to reach the broker."""

log = structlog.get_logger()


@dataclass(slots=True)
class Node:
    """All that the dispatcher thread owns.

    Attributes:
        inbox: events from everywhere.
        feeding: tells systemd that the node is well.
        reload: reads the settings file again, and applies what can change.
        slots: of the engine, as it was started.
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
    telling: Telling
    lifecycle: Lifecycle
    slots: int
    link_beat: Callable[[], float]
    link_limit_s: float
    clock: Callable[[], float] = time.monotonic
    # A connection that was not told of yet: since when it is there, and whether the broker had kept our session.
    _untold: tuple[float, bool] | None = None

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
        # Jobs that are left stand in the journal; the engine's words about them no longer count, see `handle`.
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
                # What begins as the last answer ends is the next start's: told now, it would be told again then.
                if run == self.supervision.run and not self.supervision.stopping:
                    # That comes from the intake thread; the model thread may hang.
                    if not isinstance(report, Prepared):
                        self.supervision.heard()
                    self._engine_said(report)
            case Arrived():
                if not self.bulletin.discovery.hears(event):
                    self.intake.arrived(event)
            case Delivered():
                self.bulletin.delivered_one(event)
                self.outbox.delivered_one(event)
            case Undelivered():
                self.outbox.undelivered_one(event)
            case Connected() | Disconnected() | ConnectFailed() | Subscribed() | Unsubscribed():
                self._broker_said(event)
            case Begun() | Said() | Over() | Broke():
                self.desk.hearing.away_said(event)
            case EngineGone():
                self.lifecycle.gone(event)
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
            case Connected(session_present, quiet):
                self._untold = (self.clock(), session_present) if quiet else None
                say = log.debug if quiet else log.info
                say("mqtt_connected", session_present=session_present)
                self.bulletin.connected()
                self.outbox.connected(session_present=session_present)
                self.telling.health()
            case Disconnected(reason, quiet):
                self._untold = None
                self.membership.disconnected()
                say = log.debug if quiet else log.warning
                say("mqtt_disconnected", reason=reason)
                self.telling.health()  # of which the metrics are made: nobody else hears of it now
            case ConnectFailed(reason):
                log.warning("mqtt_failed", reason=reason)
            case Subscribed():
                if self.membership.subscribed(event):
                    self.telling.pools()
            case Unsubscribed():
                if self.membership.unsubscribed(event):
                    self.telling.pools()

    def _engine_said(self, report: Report) -> None:
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
                self.lifecycle.lives(report)
            case Ready():
                self.lifecycle.ready(report)
            case LoadFailed():
                self.lifecycle.load_failed(report)
            case Log(severity, event, fields):
                getattr(log, severity)(event, **fields)

    def _vitals_read(self, vitals: Vitals) -> None:
        vitals = self.thermostat.heat.known(self.thermostat.clocks.without_ours(vitals))
        changed = self.thermostat.read(vitals, self.clock(), busy=self.supervision.computing)
        vitals = self.thermostat.without_lies(vitals)
        self.desk.course.level = self.thermostat.level
        self.desk.calling.vitals = {"level": self.desk.course.level, **as_health(vitals)}
        self.intake.slots = self.thermostat.slots
        self.telling.read(vitals, changed=changed)

    # time -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.clock()
        self.supervision.tick()
        self.desk.expire(now)
        self.intake.tick(now)
        self.membership.look(self.intake.filling)
        self.admin.tick()
        self.telling.reasons()
        if self._untold is not None and now - self._untold[0] >= STEADY_S:
            log.info("mqtt_connected", session_present=self._untold[1])
            self._untold = None
        well = now - self.link_beat() <= self.link_limit_s and self.supervision.healthy()
        self.feeding.tick(now, well=well, online=self.bulletin.online)

    def _reload(self) -> None:
        # Before `online` the start is not over for systemd, and READY=1 would end it.
        told = self.bulletin.online and self.feeding.watchdog.reloading()
        self.reload()
        self.telling.info()
        if told:
            self.feeding.watchdog.ready()

    # for admission --------------------------------------------------------------------------------------

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
