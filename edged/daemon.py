"""The composition root: the only file that knows all parts of the daemon, and the order of start and end.

Start: journal, engine, connection, vitals; the node calls itself online when the engine has answered. End: the
same backwards, within 10 seconds of the signal. The main thread is the dispatcher.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from edged import __version__, tuning
from edged.adapters import calibration_file
from edged.adapters.journal import Journal, JournalError, read_instant
from edged.adapters.local_socket import LocalSocket
from edged.adapters.mqtt import Link, Mqtt, Tls
from edged.adapters.note import Note
from edged.adapters.systemd import Notifier
from edged.adapters.textfile import Textfile
from edged.adapters.vitals import Caps, VitalsReader
from edged.core import homeassistant
from edged.core.admission import Load
from edged.core.answer_cache import AnswerCache
from edged.core.calibration import Calibration
from edged.core.heat.heat import Heat
from edged.core.heat.margins import Margins
from edged.core.heat.policy import Ceiling
from edged.core.records import SessionBounds
from edged.core.topics import Topics, is_passing
from edged.core.topology import Choice, choose, format_cores, threads
from edged.core.upstream import Policy
from edged.engine.client import COMMAND, EngineClient
from edged.engine.messages import Configure
from edged.errors import EngineError, SettingsError
from edged.node.admin import Admin
from edged.node.away import Away
from edged.node.bulletin import Bulletin
from edged.node.clocks import NOTE as CLOCKS_NOTE
from edged.node.clocks import Clocks
from edged.node.controls import Controls
from edged.node.course import Course
from edged.node.desk import Desk
from edged.node.events import Event, LocalOrder, ReloadAsked, StopAsked
from edged.node.exchange import Exchange
from edged.node.heat import Thermostat
from edged.node.homeassistant import Discovery
from edged.node.intake import Intake
from edged.node.meter import Meter
from edged.node.node import DiedError, Node
from edged.node.outbox import Outbox
from edged.node.pools import Membership
from edged.node.replies import Replies
from edged.node.sessions import Sessions
from edged.node.sharing import Sharing
from edged.node.speed import Speed
from edged.node.supervision import Supervision
from edged.node.vitals_thread import VitalsThread
from edged.settings import Settings
from edged.tools.client import Toolbox

if TYPE_CHECKING:
    from edged.adapters.http import Server
    from edged.adapters.upstream import Upstream

EX_DIED = 70  # EX_SOFTWARE of sysexits.h: systemd starts us again
ENGINE_STOP_S = 1.0
HTTP_STOP_S = 2.0
PACKET_SLACK_BYTES = 64 * 1024
"""The packet limit told to the broker is the payload limit and this much: a question a little too large then
reaches us and gets its `too_large`; the broker's own limit should lie between the two."""
LOOKUP_S = 60.0
"""The MQTT thread stands still while a name is looked up: with a router gone, 2 tries of 5 s at each of 3 servers
(resolv.conf(5)), for the name and with a search domain behind it."""
RECEIVE_SLACK = 32
"""Deliveries beyond the queue's places, so that control messages come through when it is full."""

log = structlog.get_logger()


def run(  # noqa: C901, PLR0915 - one line a part
    settings: Settings,
    *,
    engine: Sequence[str] = COMMAND,
    load: Callable[[], Settings] | None = None,
) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code of the process.

    Args:
        settings: all of it.
        engine: command of the engine process.
        load: reads the settings file again, for SIGHUP; None where there is none.

    Raises:
        SettingsError: something in the settings does not fit this machine.
    """
    reader = VitalsReader(settings.paths.sys, settings.paths.proc)
    choice, (decode_threads, prefill_threads), speed = _cores(settings, reader)
    password = settings.mqtt.password()
    key = settings.http.key() if settings.http.enabled else None
    inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: inbox.put(StopAsked(signum)))
    signal.signal(signal.SIGHUP, lambda _signum, _frame: inbox.put(ReloadAsked()))
    # Threads and the engine inherit this mask; the engine moves itself to its own cores.
    os.sched_setaffinity(0, choice.daemon)
    notifier = Notifier()
    toolbox = Toolbox(settings.tools.enabled, settings.tools.limit_s, inbox.put)
    toolbox.start()
    topics = Topics(settings.node.prefix, settings.node.id, settings.mqtt.reply_prefixes)
    journal = Journal(
        settings.paths.state / "journal.db",
        inbox.put,
        max_age_s=settings.journal.max_age_s,
        max_bytes=settings.journal.max_bytes,
        sessions=SessionBounds(
            settings.sessions.keep_s, settings.sessions.per_client, settings.sessions.total
        ),
    )
    try:
        recovered = journal.open()
    except JournalError as error:
        raise SettingsError(f"paths.state: {error}") from error
    line = Mqtt(_link(settings, topics, password), inbox.put)
    client = EngineClient(inbox.put, engine)
    supervision = Supervision(
        client,
        _configure(settings, choice, decode_threads, prefill_threads, speed),
        context_min=settings.engine.context_min,
        hang_s=settings.engine.hang_s,
        start_timeout_s=settings.engine.start_timeout_s,
        clock=time.monotonic,
        oom_kills=reader.oom_kills,
    )
    exchange = Exchange(line, topics.is_inside, inbox.put)
    outbox = Outbox(exchange, journal, topics.is_inside)
    course = Course(Replies(topics, exchange, time.monotonic), journal, time.monotonic)
    answers = AnswerCache(settings.cache.answers, settings.cache.max_bytes, settings.cache.keep_s)
    upstream, away = _upstream(settings, inbox)
    desk = Desk(
        course,
        supervision,
        outbox,
        Sharing(course, supervision, time.monotonic, answers),
        settings.limits.attempts,
        sessions=Sessions(settings.sessions.max_bytes),
        toolbox=toolbox,
        rounds_max=settings.tools.rounds,
        away=away,
    )
    bulletin = Bulletin(topics, line, settings.health.interval_s, _discovery(settings, topics, line, reader))
    membership = Membership(topics, line, settings.node.pools, bulletin.tell_event)
    about = _about(settings, reader, choice, decode_threads, prefill_threads)
    clocks = _clocks(settings, reader, choice)
    vitals = VitalsThread(reader.read, min(settings.heat.interval_s, settings.health.interval_s), inbox.put)

    def memory() -> dict[str, int]:
        pids = {"daemon_rss_bytes": os.getpid(), "engine_rss_bytes": client.pid}
        sizes = {name: reader.process_memory(pid) for name, pid in pids.items() if pid is not None}
        return {name: size for name, size in sizes.items() if size is not None}

    def node_load(client_jobs: int) -> Load:
        return node.load(client_jobs)  # the node that is made just below

    meter = Meter(None if settings.metrics.textfile is None else Textfile(settings.metrics.textfile))
    face = _face(settings, key, topics, exchange, bulletin, meter, inbox, away)
    controls = Controls(desk, journal)
    intake = Intake(
        desk,
        controls,
        journal,
        tuning.bounds(settings.limits, () if away is None else away.policy.names()),
        tuning.bound(settings.limits),
        node_load,
        read_instant,
        settings.limits.deadline_default_s,
        settings.engine.slots,
        membership.dealt,
    )
    tunes = tuning.Tuning(settings, settings, load, intake, desk, membership, bulletin, vitals, about)
    admin = Admin(
        desk,
        membership,
        supervision,
        settings.admin.enabled,
        settings.admin.models,
        tunes,
        Note(settings.paths.state / "restarted"),
        bulletin.tell_event,
        lambda: inbox.put(StopAsked(signal.SIGTERM)),
        read_instant,
    )
    intake.ordered = admin.arrived
    node = Node(
        inbox=inbox,
        desk=desk,
        controls=controls,
        intake=intake,
        outbox=outbox,
        supervision=supervision,
        thermostat=_thermostat(
            settings,
            reader,
            supervision,
            membership,
            bulletin,
            clocks,
            relieved=lambda: away is not None and away.relieves,
        ),
        bulletin=bulletin,
        membership=membership,
        admin=admin,
        reload=tunes.reload,
        watchdog=notifier,
        about=about,
        slots=settings.engine.slots,
        journal_depth=journal.depth,
        link_beat=lambda: line.beat,
        link_limit_s=max(LOOKUP_S, 2.0 * settings.mqtt.keepalive_s) + 10.0,
        daemon_rss=memory,
        watchdog_every_s=notifier.watchdog_interval_s or 10.0,
        speed=speed,
        meter=meter,
    )
    admin.status = node.status
    local = LocalSocket(
        settings.control_socket(), lambda payload, answer: inbox.put(LocalOrder(payload, answer))
    )

    log.info("starting", version=__version__, node=settings.node.id, cores=choice.reason)
    if recovered.set_aside:
        log.error("journal_set_aside", file=recovered.set_aside)
    now = read_instant()
    desk.recover(recovered, now.boot_id, now.monotonic_s, is_passing)
    outbox.owe(recovered.outbox)
    supervision.start()
    line.start()
    vitals.start()
    if face is not None:
        face.start()
    local.start()
    if upstream is not None:
        upstream.start()
    died: DiedError | EngineError | None = None
    try:
        node.serve()
        if face is not None:
            face.close()
        node.finish()
    except DiedError as error:
        log.critical("died", reason=str(error))
        died = error
    finally:
        clocks.restore()
    if face is not None:
        face.stop(HTTP_STOP_S)
    local.stop()
    if upstream is not None:
        upstream.stop(1.0)
    vitals.stop(1.0)
    toolbox.stop(1.0)
    client.stop(ENGINE_STOP_S)
    line.stop(1.0)
    journal.close(2.0)
    log.info("stopped", jobs_left=len(desk.roster))
    return 0 if died is None else EX_DIED


def _cores(settings: Settings, reader: VitalsReader) -> tuple[Choice, tuple[int, int], Speed]:
    """Who runs where, with how many threads for decode and prefill, and the speed to expect of that.

    Counts are the settings', else the calibrated ones, else the board's default.
    """
    engine = settings.engine
    try:
        choice = choose(reader.topology(), frozenset(os.sched_getaffinity(0)), engine.core_set())
        calibration = _calibration(settings, reader, choice)
        decode, prefill = engine.decode_threads, engine.prefill_threads
        if calibration is not None:
            decode, prefill = decode or calibration.decode_threads, prefill or calibration.prefill_threads
        counts = threads(choice, decode, prefill)
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error
    rates = None if calibration is None else calibration.rates(*counts)
    if rates is None:
        return choice, counts, Speed()
    return choice, counts, Speed(calibration, *rates, counts[0], choice.engine, time.monotonic)


def _calibration(settings: Settings, reader: VitalsReader, choice: Choice) -> Calibration | None:
    """What `edged calibrate` measured, if it holds for this model, these cores and this llama.cpp."""
    model = settings.model
    key = calibration_file.key(model.path, model.sha256, reader.topology().board, choice.engine)
    if key is None:
        return None
    found, reason = calibration_file.fitting(settings.paths.state, key)
    if reason is not None:
        log.warning("calibration_ignored", reason=reason, mend="run edged calibrate again")
    return found


def _face(  # noqa: PLR0917 - the parts that it touches
    settings: Settings,
    key: str | None,
    topics: Topics,
    exchange: Exchange,
    bulletin: Bulletin,
    meter: Meter,
    inbox: queue.SimpleQueue[Event],
    away: Away | None,
) -> Server | None:
    """The HTTP face, bound but not started; None where it is off."""
    http = settings.http
    if not http.enabled:
        return None
    try:
        from edged.adapters.http import Listening, Node, Server, bind  # noqa: PLC0415 - an extra
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
        payload_bytes_max=settings.limits.payload_bytes,
        version=__version__,
        larger=() if away is None else away.policy.names(),
    )
    return Server(listening, bind(listening), seen, key, inbox.put)


def _thermostat(  # noqa: PLR0917 - the parts that it moves
    settings: Settings,
    reader: VitalsReader,
    supervision: Supervision,
    membership: Membership,
    bulletin: Bulletin,
    clocks: Clocks,
    *,
    relieved: Callable[[], bool],
) -> Thermostat:
    heat, engine = settings.heat, settings.engine
    margins = Margins(
        heat.warm_c, heat.hot_c, heat.critical_c, heat.target_c, heat.hysteresis_c, heat.dwell_s
    )

    def ceiling() -> Ceiling:
        setup = supervision.setup
        threads = setup.decode_threads, setup.prefill_threads
        return Ceiling(setup.context, engine.context_min, setup.slots, *threads)

    judge = Heat(margins, reader.topology().board, heat.trip_c)
    return Thermostat(
        judge,
        ceiling,
        supervision,
        membership,
        bulletin.tell_event,
        clocks,
        relieved=relieved,
    )


def _clocks(settings: Settings, reader: VitalsReader, choice: Choice) -> Clocks:
    return Clocks(
        Caps(settings.paths.sys),
        choice.engine,
        Note(settings.paths.state / CLOCKS_NOTE),
        reader.boot_id(),
        settings.heat.clocks == "auto",
    )


def _upstream(settings: Settings, inbox: queue.SimpleQueue[Event]) -> tuple[Upstream | None, Away | None]:
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
    if key is not None and wanted.url.startswith("http:"):
        log.warning("upstream_without_tls", host=wanted.host, reason="the key goes over the network in clear")
    way = Way(wanted.url, key, wanted.ca, wanted.connect_timeout_s, wanted.silence_timeout_s, wanted.jobs)
    server = Upstream(way, inbox.put)
    policy = Policy(wanted.host, wanted.model, frozenset(wanted.when))
    return server, Away(server, policy, time.monotonic, Judge())


def _link(settings: Settings, topics: Topics, password: str | None) -> Link:
    mqtt = settings.mqtt
    tls = None if mqtt.tls is None else Tls(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key)
    return Link(
        host=mqtt.host,
        port=mqtt.port,
        client_id=f"edged-{settings.node.id}",
        keepalive_s=mqtt.keepalive_s,
        session_expiry_s=mqtt.session_expiry_s,
        receive_max=min(65_535, settings.limits.queue_jobs + RECEIVE_SLACK),
        packet_bytes_max=16 * settings.limits.payload_bytes + PACKET_SLACK_BYTES,
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


def _discovery(settings: Settings, topics: Topics, line: Mqtt, reader: VitalsReader) -> Discovery:
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


def _configure(
    settings: Settings, choice: Choice, decode_threads: int, prefill_threads: int, speed: Speed
) -> Configure:
    model, engine = settings.model, settings.engine
    return Configure(
        model_path=str(model.path),
        sha256=model.sha256,
        name=model.name,
        chat_template=None if model.chat_template is None else str(model.chat_template),
        slots=engine.slots,
        context=engine.context_max,
        batch_tokens=engine.batch_tokens,
        decode_threads=decode_threads,
        prefill_threads=prefill_threads,
        cores=choice.engine,
        reasoning_budget=engine.reasoning_budget,
        delta_interval_s=engine.delta_interval_ms / 1000,
        kv_type=engine.kv_type,
        lock_memory=engine.lock_memory,
        gpu_layers=engine.gpu_layers,
        system_prompt=model.system_prompt,
        prefix_folder=str(settings.paths.state / "prefixes"),
        prefix_bytes=engine.prefix_store_bytes,
        step_s=speed.step_s,
        read_s=speed.read_s,
    )


def _about(
    settings: Settings, reader: VitalsReader, choice: Choice, decode_threads: int, prefill_threads: int
) -> dict[str, Any]:
    return {
        "node": settings.node.id,
        "version": __version__,
        "contract": 1,
        "boot_id": reader.boot_id(),
        "board": reader.topology().board,
        "context_max": settings.engine.context_max,
        "context_min": settings.engine.context_min,
        "slots": settings.engine.slots,
        "decode_threads": decode_threads,
        "prefill_threads": prefill_threads,
        "cores": {
            "engine": list(choice.engine),
            "daemon": sorted(os.sched_getaffinity(0)),
            "reason": choice.reason,
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
