"""What happens to a node, as values: everything that threads, processes and the network put into its inbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edged.core.link import LinkEvent
from edged.core.records import JournalEvent
from edged.core.upstream import Event as UpstreamEvent
from edged.engine.client import EngineGone, EngineSaid
from edged.node.vitals_thread import VitalsRead
from edged.tools.client import ToolsRan


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A signal asks us to end."""

    signal: int


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """A signal asks us to read the settings again."""


@dataclass(frozen=True, slots=True)
class LocalOrder:
    """An order of somebody on this machine; `answer` takes one line and may be called from any thread."""

    payload: bytes
    answer: Callable[[bytes], None]


Event = (
    LinkEvent
    | JournalEvent
    | UpstreamEvent
    | EngineGone
    | EngineSaid
    | LocalOrder
    | ReloadAsked
    | StopAsked
    | ToolsRan
    | VitalsRead
)
