"""What of the settings can change while the daemon runs: by a reload of the file, or by an operator.

Belongs to the dispatcher thread. A reload takes the file as it stands, so what an operator had set is gone then
(the file is the truth); a file that is wrong changes nothing. What needs a restart is named, once, in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from edged import logs, settings
from edged.core.admin import Value
from edged.core.admission import Bound
from edged.core.parsing import Bounds
from edged.errors import SettingsError
from edged.node.bulletin import Bulletin
from edged.node.desk import Desk
from edged.node.intake import Intake
from edged.node.pools import Membership
from edged.node.vitals_thread import VitalsThread
from edged.settings import Settings

log = structlog.get_logger()


def bounds(limits: settings.Limits, larger: tuple[str, ...]) -> Bounds:
    """What one question may be; `larger` are names of models that a larger server has."""
    return Bounds(limits.payload_bytes, limits.messages, limits.stop_sequences, limits.deadline_max_s, larger)


def bound(limits: settings.Limits) -> Bound:
    """What all questions together may take."""
    return Bound(limits.queue_jobs, limits.queue_bytes, limits.client_jobs)


def limits_told(limits: settings.Limits) -> dict[str, int]:
    """What `info` says of the limits."""
    return {
        "payload_bytes": limits.payload_bytes,
        "queue_jobs": limits.queue_jobs,
        "client_jobs": limits.client_jobs,
    }


@dataclass(slots=True)
class Tuning:
    """The settings in effect, and the parts that follow them.

    Attributes:
        started: the settings that the process was started with; what needs a restart is still theirs.
        current: the settings in effect.
        load: reads the settings file again; None where there is none.
        about: the start of `info`, which names the limits.
        read: the files that were read at the start, passwords and certificates, as they were then.
    """

    started: Settings
    current: Settings
    load: Callable[[], Settings] | None
    intake: Intake
    desk: Desk
    membership: Membership
    bulletin: Bulletin
    vitals: VitalsThread
    about: dict[str, Any]
    read: settings.Marks = field(init=False)

    def __post_init__(self) -> None:
        self.read = settings.marks(self.started)

    def show(self) -> dict[str, Any]:
        """Settings that can change, by key."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in settings.values(self.current).items()
            if settings.at_run_time(key)
        }

    def change(self, changes: dict[str, Value]) -> dict[str, Any]:
        """Check and apply an operator's changes; returns what is different now.

        Raises:
            SettingsError: a key or value is wrong; nothing has changed.
        """
        wanted = settings.changed(self.current, changes)
        different = settings.differences(self.current, wanted)
        self._apply(wanted)
        log.info("settings_changed", changed=different)
        return different

    def reload(self) -> None:
        """Read the file again; one line in the log says what came of it."""
        if self.load is None:
            log.warning("reload_failed", reason="the daemon was started without a settings file")
            return
        wanted = _tried(self.load)
        if isinstance(wanted, str):
            log.error("reload_failed", reason=wanted, kept="the settings before")
            self.bulletin.tell_event("reload_failed", reason=wanted)
            return
        changed = {
            key: value
            for key, value in settings.differences(self.current, wanted).items()
            if settings.at_run_time(key)
        }
        restart = [key for key in settings.differences(self.started, wanted) if not settings.at_run_time(key)]
        restart += [key for key in settings.others(self.read, settings.marks(wanted)) if key not in restart]
        self._apply(wanted)
        fields: dict[str, Any] = {"changed": changed}
        if restart:
            fields["needs_restart"] = restart
        log.info("reloaded", **fields)
        self.bulletin.tell_event("reloaded", changed=sorted(changed), needs_restart=restart)

    def _apply(self, wanted: Settings) -> None:
        limits = wanted.limits
        self.intake.bounds, self.intake.bound = bounds(limits, self.intake.bounds.models), bound(limits)
        self.intake.deadline_default_s = limits.deadline_default_s
        self.intake.answer_tokens = limits.answer_tokens
        self.desk.blame.attempts_max = limits.attempts
        cache = wanted.cache
        self.desk.sharing.answers.bound(cache.answers, cache.max_bytes, cache.keep_s)
        self.about["limits"] = limits_told(limits)
        self.membership.set_pools(wanted.node.pools)
        self.bulletin.interval_s = wanted.health.interval_s
        # That of heat waits for a restart, as the log says of it.
        self.vitals.set_interval(min(self.started.heat.interval_s, wanted.health.interval_s))
        if wanted.log != self.current.log:
            logs.configure(wanted.log.level, wanted.log.format)
        self.current = wanted


def _tried(load: Callable[[], Settings]) -> Settings | str:
    """The settings, or what is wrong with the file."""
    try:
        return load()
    except SettingsError as error:
        return str(error)
