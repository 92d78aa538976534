"""From the settings to the parts of the daemon that follow them closely: each is made here, none is started.

What runs, and when it is started and ended, is `edged.daemon`'s to say.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from edged import __version__, tuning
from edged.adapters import certificate_files
from edged.adapters.mqtt import Link, Mqtt, Tls
from edged.adapters.note import Note
from edged.adapters.vitals import Caps, VitalsReader
from edged.core import homeassistant
from edged.core.heat.edges import Edges
from edged.core.heat.heat import Heat
from edged.core.heat.margins import of_section
from edged.core.heat.policy import Ceiling
from edged.core.topics import Topics
from edged.core.topology import Choice, format_cores
from edged.core.upstream import Policy
from edged.engine.messages import Configure
from edged.errors import SettingsError
from edged.footing import Footing
from edged.node.away import Away
from edged.node.bulletin import Bulletin
from edged.node.clocks import NOTE as CLOCKS_NOTE
from edged.node.clocks import Clocks
from edged.node.events import Event
from edged.node.exchange import Exchange
from edged.node.heat import Thermostat
from edged.node.homeassistant import Discovery
from edged.node.meter import Meter
from edged.node.pools import Membership
from edged.node.supervision import Supervision
from edged.settings import Settings

if TYPE_CHECKING:
    from edged.adapters.http import Server
    from edged.adapters.upstream import Upstream

PACKET_FACTOR, PACKET_BYTES_MIN, PACKET_SLACK_BYTES = 16, 1024 * 1024, 64 * 1024
"""The packet limit told to the broker is so many times the payload limit: a question that is too large then reaches
us and gets its `too_large`, where the broker would drop it in silence; its own limit should lie between the two. At
least as much as the largest payload limit, for a reload may raise that, and the broker is told once."""
RECEIVE_SLACK = 32
"""Deliveries beyond the queue's places, so that control messages come through when it is full."""

log = structlog.get_logger()


def certificates(settings: Settings) -> dict[str, float]:
    """When the certificates that are read at the start end, in seconds since 1970, by the setting of their file."""
    broker, http = settings.mqtt.tls, settings.http
    files: list[tuple[str, Path | None, bool]] = []
    if broker is not None:
        files += [("mqtt.tls.ca", broker.ca, True), ("mqtt.tls.cert", broker.cert, False)]
    if http.enabled and http.tls is not None:
        files.append(("http.tls.cert", http.tls.cert, False))
    return {
        setting: one.ends_s
        for setting, path, authorities in files
        if path is not None
        for one in certificate_files.certificates(path, authorities=authorities)
        if not one.reason
    }


def face(  # noqa: PLR0917 - the parts that it touches
    settings: Settings,
    key: str | None,
    topics: Topics,
    exchange: Exchange,
    bulletin: Bulletin,
    meter: Meter,
    inbox: queue.SimpleQueue[Event],
    away: Away | None,
    *,
    payload_bytes_max: Callable[[], int],
) -> Server | None:
    """The HTTP face, bound but not started; None where it is off."""
    http = settings.http
    if not http.enabled:
        return None
    try:
        from edged.adapters.http import Listening, Node, Server  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"http.enabled: the package {error.name} is missing; install edged with its extra: edged[http]"
        ) from error
    if key is None:
        log.warning("http_without_key", host=http.host, reason="every program on this machine may ask")
    tls = http.tls
    listening = Listening(
        http.host,
        http.port,
        http.connections,
        None if tls is None else tls.cert,
        None if tls is None else tls.key,
    )
    seen = Node(
        topics=topics,
        exchange=exchange,
        emit=inbox.put,
        info=lambda: bulletin.info,
        health=lambda: bulletin.health,
        metrics=meter.read,
        payload_bytes_max=payload_bytes_max,
        version=__version__,
        larger=() if away is None else away.policy.names(),
    )
    return Server(listening, seen, key, inbox.put)


def thermostat(  # noqa: PLR0917 - the parts that it moves
    settings: Settings,
    reader: VitalsReader,
    supervision: Supervision,
    membership: Membership,
    bulletin: Bulletin,
    clocks: Clocks,
    *,
    relieved: Callable[[], bool],
) -> Thermostat:
    """What acts on the heat of the board; `relieved`: a larger server answers what a hot board does not."""
    engine = settings.engine

    def ceiling() -> Ceiling:
        setup = supervision.setup
        threads = setup.decode_threads, setup.prefill_threads
        return Ceiling(setup.context, engine.context_min, setup.slots, *threads)

    note = Note(settings.paths.state / "throttles")
    edges = Edges.after(note.read(), reader.boot_id())
    judge = Heat(of_section(settings.heat), reader.topology().board, settings.heat.trip_c, edges)
    return Thermostat(
        judge,
        ceiling,
        supervision,
        membership,
        bulletin.tell_event,
        clocks,
        note.write,
        relieved,
    )


def clocks(settings: Settings, reader: VitalsReader, choice: Choice) -> Clocks:
    """The clocks of the engine's cores."""
    return Clocks(
        Caps(settings.paths.sys),
        choice.engine,
        Note(settings.paths.state / CLOCKS_NOTE),
        reader.boot_id(),
        settings.heat.clocks == "auto",
    )


def upstream(settings: Settings, inbox: queue.SimpleQueue[Event]) -> tuple[Upstream | None, Away | None]:
    """The larger server and what the desk knows of it; neither where none is set."""
    wanted = settings.upstream
    if wanted.url is None or wanted.model is None:
        return None, None
    try:
        from edged.adapters.judge import Judge  # noqa: PLC0415 - an extra
        from edged.adapters.upstream import Link as Way  # noqa: PLC0415
        from edged.adapters.upstream import Upstream  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"upstream.url: the package {error.name} is missing; install edged with its extra: edged[http]"
        ) from error
    key = wanted.key()
    if key is not None and wanted.in_clear:
        log.warning("upstream_without_tls", host=wanted.host, reason="the key goes over the network in clear")
    way = Way(wanted.url, key, wanted.ca, wanted.connect_timeout_s, wanted.silence_timeout_s, wanted.jobs)
    server = Upstream(way, inbox.put)
    policy = Policy(wanted.host, wanted.model, frozenset(wanted.when))
    return server, Away(server, policy, time.monotonic, Judge(), system_prompt=settings.model.system_prompt)


def link(settings: Settings, topics: Topics, password: str | None) -> Link:
    """Where the broker is, and what is demanded of it."""
    mqtt = settings.mqtt
    tls = None if mqtt.tls is None else Tls(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key)
    return Link(
        host=mqtt.host,
        port=mqtt.port,
        client_id=f"edged-{settings.node.id}",
        keepalive_s=mqtt.keepalive_s,
        session_expiry_s=mqtt.session_expiry_s,
        receive_max=min(65_535, settings.limits.queue_jobs + RECEIVE_SLACK),
        packet_bytes_max=max(PACKET_BYTES_MIN, PACKET_FACTOR * settings.limits.payload_bytes)
        + PACKET_SLACK_BYTES,
        will_topic=topics.status,
        will=b"offline",
        subscriptions=(
            *topics.subscriptions(),
            *((topics.admin("+"),) if settings.admin.enabled else ()),
            *((settings.homeassistant.birth_topic,) if settings.homeassistant.enabled else ()),
        ),
        username=mqtt.username,
        password=password,
        tls=tls,
    )


def discovery(settings: Settings, topics: Topics, line: Mqtt, reader: VitalsReader) -> Discovery:
    """What Home Assistant is told."""
    wanted = settings.homeassistant
    topic = homeassistant.topic(wanted.discovery_prefix, settings.node.id)
    return Discovery(
        topics,
        line,
        Note(settings.paths.state / "homeassistant"),
        topic=topic if wanted.enabled else None,
        birth_topic=wanted.birth_topic,
        admin=settings.admin.enabled,
        about={"version": __version__, "board": reader.topology().board},
    )


def configure(settings: Settings, footing: Footing) -> Configure:
    """What the engine is to load, and its ceilings."""
    model, engine = settings.model, settings.engine
    return Configure(
        model_path=str(model.path),
        sha256=model.sha256,
        name=model.name,
        chat_template=None if model.chat_template is None else str(model.chat_template),
        slots=engine.slots,
        context=engine.context_max,
        batch_tokens=engine.batch_tokens,
        decode_threads=footing.decode_threads,
        prefill_threads=footing.prefill_threads,
        cores=footing.choice.engine,
        reasoning_budget=engine.reasoning_budget,
        delta_interval_s=engine.delta_interval_ms / 1000,
        kv_type=engine.kv_type,
        flash_attention=engine.flash_attention,
        huge_pages=footing.huge_pages,
        lock_memory=engine.lock_memory,
        gpu_layers=engine.gpu_layers,
        system_prompt=model.system_prompt,
        prefix_folder=str(settings.paths.state / "prefixes"),
        prefix_bytes=engine.prefix_store_bytes,
        draft_max=engine.draft_max,
        step_s=footing.speed.step_s,
        read_s=footing.speed.read_s,
        hang_s=engine.hang_s,
    )


def about(settings: Settings, reader: VitalsReader, footing: Footing) -> dict[str, Any]:
    """The start of `info`: all that is known of this node without its engine."""
    return {
        "node": settings.node.id,
        "version": __version__,
        "contract": 1,
        "boot_id": reader.boot_id(),
        "board": reader.topology().board,
        "context_max": settings.engine.context_max,
        "context_min": settings.engine.context_min,
        "slots": settings.engine.slots,
        "decode_threads": footing.decode_threads,
        "prefill_threads": footing.prefill_threads,
        "cores": {
            "engine": list(footing.choice.engine),
            "daemon": sorted(os.sched_getaffinity(0)),
            "reason": footing.choice.reason,
            "allowed": format_cores(os.sched_getaffinity(0)),
        },
        "limits": tuning.limits_told(settings.limits),
        "capabilities": [
            "stream",
            "cancel",
            "resume",
            "reasoning",
            "plain_text",
            "trim_history",
            "session",
            "forget",
            "json_schema",
            "tools",
            *(["http"] if settings.http.enabled else []),
            *(["upstream"] if settings.upstream.url else []),
        ],
        "tools": list(settings.tools.enabled),
    }
