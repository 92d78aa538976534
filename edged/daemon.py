"""The composition root: the only file that knows all parts of the daemon, and the order of start and end.

Start: journal, engine, connection, vitals; the node calls itself online when the engine has answered. End: first
what lasts, the journal and the word to the broker, then the rest; all of it within one time. The main thread is the
dispatcher. What the settings make of single parts stands in `parts`.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Sequence

import structlog

from edged import __version__, parts, tuning
from edged.adapters import program
from edged.adapters.journal import Journal, JournalBusyError, JournalError, read_instant
from edged.adapters.local_socket import LocalSocket
from edged.adapters.mqtt import Mqtt
from edged.adapters.note import Note
from edged.adapters.systemd import Notifier
from edged.adapters.textfile import Textfile
from edged.adapters.vitals import VitalsReader
from edged.core.admission import Load
from edged.core.answer_cache import AnswerCache
from edged.core.records import SessionBounds
from edged.core.topics import Topics, is_passing
from edged.engine.client import COMMAND, EngineClient
from edged.errors import DiedError, NotNowError, SettingsError
from edged.footing import find_footing
from edged.node.admin import Admin
from edged.node.blame import Blame
from edged.node.bulletin import Bulletin
from edged.node.calling import Calling
from edged.node.controls import Controls
from edged.node.course import Course
from edged.node.desk import Desk
from edged.node.disk_watch import DiskWatch
from edged.node.events import Event, LocalOrder, ReloadAsked, StopAsked
from edged.node.exchange import Exchange
from edged.node.feeding import Feeding
from edged.node.forgetting import Forgetting
from edged.node.giving import Giving
from edged.node.intake import Intake
from edged.node.lifecycle import Lifecycle
from edged.node.meter import Meter
from edged.node.node import Node
from edged.node.outbox import Outbox
from edged.node.pools import Membership
from edged.node.recovery import recover
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Sharing
from edged.node.supervision import Supervision
from edged.node.telling import Telling
from edged.node.vitals_thread import VitalsThread
from edged.settings import Settings
from edged.tools.client import Toolbox

ENDING_S = 9.0
"""For all that is ended when the node has finished. With what that takes (GRACE_S, twice FLUSH_S) it is less than
the unit's TimeoutStopSec=, also where broker, disk, sensors and engine hang; the process then ends without them."""
LOOKUP_S = 60.0
"""The MQTT thread stands still while a name is looked up: with a router gone, 2 tries of 5 s at each of 3 servers
(resolv.conf(5)), for the name and with a search domain behind it."""

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
        NotNowError: the journal or the tools cannot be had just now.
    """
    files = program.marks()
    reader = VitalsReader(settings.paths.sys, settings.paths.proc)
    footing = find_footing(settings, reader)
    choice, speed = footing.choice, footing.speed
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
    notifier.extend_start(journal.opening_s)
    try:
        recovered = journal.open()
    except JournalBusyError as error:
        raise NotNowError(f"paths.state: {error}") from error
    except JournalError as error:
        raise SettingsError(f"paths.state: {error}") from error
    line = Mqtt(parts.link(settings, topics, password), inbox.put, inbox.qsize)
    client = EngineClient(inbox.put, engine)
    supervision = Supervision(
        client,
        parts.configure(settings, footing),
        context_min=settings.engine.context_min,
        hang_s=settings.engine.hang_s,
        start_timeout_s=settings.engine.start_timeout_s,
        clock=time.monotonic,
        oom_kills=reader.oom_kills,
        updated=lambda: program.updated(files),
    )
    exchange = Exchange(line, topics.is_inside, inbox.put)
    outbox = Outbox(exchange, journal, topics.is_inside)
    course = Course(Replies(topics, exchange, time.monotonic), journal, time.monotonic)
    answers = AnswerCache(settings.cache.answers, settings.cache.max_bytes, settings.cache.keep_s)
    upstream, away = parts.upstream(settings, inbox)
    forget = Note(settings.paths.state / "forget", durable=True)  # a device is told that it is forgotten
    roster = Roster()
    giving = Giving(
        course,
        supervision,
        Sharing(course, supervision, time.monotonic, answers),
        roster,
        Sessions(settings.sessions.max_bytes),
        Calling(topics.node, toolbox, settings.tools.rounds),
        Blame(course, roster, settings.limits.attempts),
        away,
    )
    desk = Desk(giving, outbox, Forgetting(supervision, bool(forget.read()), forget.write))
    bulletin = Bulletin(
        topics, line, settings.health.interval_s, parts.discovery(settings, topics, line, reader)
    )
    membership = Membership(topics, line, settings.node.pools, bulletin.tell_event)
    about = parts.about(settings, reader, footing)
    clocks = parts.clocks(settings, reader, choice)
    vitals = VitalsThread(reader.read, min(settings.heat.interval_s, settings.health.interval_s), inbox.put)

    def memory() -> dict[str, int]:
        pids = {"daemon_rss_bytes": os.getpid(), "engine_rss_bytes": client.pid}
        sizes = {name: reader.process_memory(pid) for name, pid in pids.items() if pid is not None}
        return {name: size for name, size in sizes.items() if size is not None}

    def node_load(client_jobs: int) -> Load:
        return node.load(client_jobs)  # the node that is made just below

    textfile = settings.metrics.textfile
    meter = Meter(None if textfile is None else Textfile(textfile), parts.certificates(settings))
    face = parts.face(
        settings,
        key,
        topics,
        exchange,
        bulletin,
        meter,
        inbox,
        away,
        payload_bytes_max=lambda: intake.bounds.payload_bytes,  # of the intake that is made just below
    )
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
        settings.limits.answer_tokens,
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
    thermostat = parts.thermostat(
        settings,
        reader,
        supervision,
        membership,
        bulletin,
        clocks,
        relieved=lambda: away is not None and away.relieves,
    )
    telling = Telling(
        desk,
        outbox,
        supervision,
        thermostat,
        bulletin,
        membership,
        admin,
        systemd=notifier,
        about=about,
        journal_depth=DiskWatch(journal.depth),
        memory=memory,
        meter=meter,
        speed=speed,
    )
    admin.status, admin.tell_info = telling.status, telling.info
    node = Node(
        inbox=inbox,
        desk=desk,
        controls=controls,
        intake=intake,
        outbox=outbox,
        supervision=supervision,
        thermostat=thermostat,
        bulletin=bulletin,
        membership=membership,
        admin=admin,
        reload=tunes.reload,
        feeding=Feeding(notifier, notifier.watchdog_interval_s or 10.0),
        telling=telling,
        lifecycle=Lifecycle(supervision, desk, membership, admin, thermostat, bulletin, speed, telling),
        slots=settings.engine.slots,
        link_beat=lambda: line.beat,
        link_limit_s=max(LOOKUP_S, 2.0 * settings.mqtt.keepalive_s) + 10.0,
    )
    local = LocalSocket(
        settings.control_socket(), lambda payload, answer: inbox.put(LocalOrder(payload, answer))
    )

    log.info("starting", version=__version__, node=settings.node.id, cores=choice.reason)
    if recovered.set_aside:
        log.error("journal_set_aside", file=recovered.set_aside)
    if recovered.unreadable:
        log.error("answers_unreadable", count=recovered.unreadable)
    now = read_instant()
    recover(desk, recovered, now.boot_id, now.monotonic_s, is_passing)
    outbox.owe(recovered.outbox)
    del recovered  # all that waited, with its conversations and answers: megabytes, for as long as we live
    supervision.start()
    line.start()
    vitals.start()
    if face is not None:
        face.start()
    local.start()
    if upstream is not None:
        upstream.start()
    died: DiedError | None = None
    try:
        node.serve()
        if face is not None:
            face.close()
        node.finish()
    except DiedError as error:
        log.critical("died", reason=str(error))
        died = error
        # We still say goodbye to the broker, which then keeps our last will to itself. It may be for good.
        membership.leave("stopping")
        bulletin.go_offline()
    finally:
        clocks.restore()
        thermostat.close()
        meter.close()
    exchange.end()
    end = time.monotonic() + ENDING_S

    def left(most_s: float) -> float:
        return max(0.0, min(most_s, end - time.monotonic()))

    journal.close(left(2.0))
    line.stop(left(1.0))
    if face is not None:
        face.stop(left(2.0))
    local.stop()
    client.stop(left(1.0))
    if upstream is not None:
        upstream.stop(left(1.0))
    vitals.stop(left(1.0))
    toolbox.stop(left(1.0))
    log.info("stopped", jobs_left=len(desk.roster))
    return os.EX_OK if died is None else os.EX_SOFTWARE  # systemd starts us again
