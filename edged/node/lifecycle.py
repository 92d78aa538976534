"""The engine's coming and going, and what follows from it for the rest of the node.

Belongs to the dispatcher thread. The process is `supervision`'s to keep; what becomes of the jobs is the desk's.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.engine.client import EngineGone
from edged.engine.messages import LoadFailed, Pulse, Ready
from edged.node.admin import Admin
from edged.node.bulletin import Bulletin
from edged.node.desk import Desk
from edged.node.heat import Thermostat
from edged.node.pools import LOADING, Membership
from edged.node.speed import Speed
from edged.node.supervision import Supervision
from edged.node.telling import Telling


@dataclass(slots=True)
class Lifecycle:
    """Tells desk, pools, operators and everybody outside."""

    supervision: Supervision
    desk: Desk
    membership: Membership
    admin: Admin
    thermostat: Thermostat
    bulletin: Bulletin
    speed: Speed
    telling: Telling

    def lives(self, pulse: Pulse) -> None:
        """A sign of life."""
        self.supervision.pulse = pulse
        usual = self.thermostat.level == "cool" and not self.thermostat.clocks.lowered
        limits, vitals = self.supervision.limits, self.telling.vitals
        self.speed.heard(pulse, limits, vitals, self.bulletin, usual=usual)

    def ready(self, report: Ready) -> None:
        """The engine answers from now on."""
        if self.supervision.replacing:
            return  # its process is being ended for another one
        self.supervision.became_ready(report)
        self.speed.loaded(measured=self.supervision.setup.step_s > 0)
        self.desk.engine_ready(report.model.name)
        self.membership.rejoin(LOADING)
        if self.supervision.reverted:
            self.admin.model_failed(self.supervision.reverted)
        else:
            self.admin.engine_ready(report.model.name)
        self.telling.info()
        self.telling.online()
        self.bulletin.tell_event("engine_ready", model=report.model.name, load_s=report.load_s)

    def load_failed(self, report: LoadFailed) -> None:
        """The model cannot be used; the node is online all the same, to say so."""
        if self.supervision.replacing:
            return  # its process is being ended for another one
        self.supervision.load_failed(report)
        if self.supervision.replacing:
            return  # the model before it comes back
        self.admin.model_failed(self.supervision.reverted or report.reason)
        self.telling.info()
        self.telling.online()
        self.bulletin.tell_event("model_failed", reason=report.reason)

    def gone(self, event: EngineGone) -> None:
        """The engine's process has ended, in whatever way."""
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
            self.telling.info()
        elif was_ready or self.supervision.phase == "broken":
            if not self.supervision.quiet:
                self.bulletin.tell_event("engine_gone", reason=self.supervision.reason)
            self.telling.info()
        if self.supervision.phase == "broken":
            self.admin.model_failed(self.supervision.reverted or self.supervision.reason)
            self.telling.online()
