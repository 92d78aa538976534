"""Takes all readings and has them judged, one matter after the other. Command line's process; starts no daemon.

Works without settings, without a daemon and without a broker: what cannot be looked at is said so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edged.adapters import machine, model_file
from edged.adapters.certificate_files import certificates
from edged.adapters.model_file import ModelFile
from edged.adapters.mqtt import Tls
from edged.adapters.mqtt.probe import Asked, probe
from edged.adapters.note import Note
from edged.adapters.vitals import Caps, VitalsReader
from edged.client.local import NoDaemonError, SilentError, order, usual
from edged.core.board import Board
from edged.core.checks import board as board_checks
from edged.core.checks import broker as broker_checks
from edged.core.checks import model as model_checks
from edged.core.checks import node as node_checks
from edged.core.checks.board import Library
from edged.core.checks.node import NOT_TOLD, Folder, Unit
from edged.core.checks.verdict import Verdict, failure, unknown
from edged.core.heat.clocks import decode, lowered
from edged.core.heat.margins import Margins, of_section, with_known_trips
from edged.core.topology import Choice, choose, threads
from edged.core.vitals import Vitals
from edged.engine import template_file
from edged.engine.environment import huge_pages
from edged.engine.trial_client import describe, used_sets
from edged.errors import EngineError, ModelError, NotNowError, SettingsError
from edged.footing import calibrated
from edged.node.clocks import NOTE
from edged.settings import Settings
from edged.settings.http import is_loopback
from edged.settings.network import hidden

STATUS_S = 5.0
BACK_S, LOOK_S = 5.0, 0.5
"""A node is back within so long of its broker: one that is not does not get there by itself, and is no longer
disturbed by somebody who logs in as it."""
Tell = Callable[[str], None]
"""Called with what is being looked at."""


def look(
    settings: Settings | None, told: list[Verdict], *, given: str, quick: bool, tell: Tell
) -> Iterator[Verdict]:
    """Look at everything, in the order of the screen.

    Args:
        settings: None where there is none that is accepted.
        told: verdicts on the settings.
        given: the option that gives another command these settings, with a space before it; "" where it needs none.
        quick: without hashing the model and without asking llama.cpp.
        tell: for a progress line.
    """
    reader = VitalsReader() if settings is None else VitalsReader(settings.paths.sys, settings.paths.proc)
    tell("the board")
    found = reader.board()
    choice, reason = _choice(reader, settings)
    yield from _board(reader, found, choice, reason, settings)
    yield _huge_pages(found, choice, settings)
    if not quick:
        tell("llama.cpp")
        library = _library()
        yield board_checks.instructions(found, library)
        gpu = board_checks.gpu(library, 0 if settings is None else settings.engine.gpu_layers)
        if gpu is not None:
            yield gpu
    yield from told
    tell("the service")
    unit = machine.unit()
    if settings is not None:
        pid, unsure = machine.journal_holder(settings.paths.state)
        running = pid is not None or _active(unit)
        folder = machine.folder(settings.paths.state)
        model = list(_model(settings, found, choice, folder, given, running=running, quick=quick, tell=tell))
        yield from model
        tell("the broker")
        said = _said(settings)
        missed = running and not settings.http_alone and _missed(settings, said)
        yield from _network(settings, may_log_in=missed or (not running and not unsure), missed=missed)
        if not running and not unsure and settings.http.enabled:
            yield from _port(settings)
        ours = not given and unit is not None and unit.properties.get("LoadState") not in {None, "not-found"}
        yield node_checks.daemon(pid, unsure, said, None if ours else f"edged run{given}")
        engine = node_checks.engine(said or {})
        if engine is not None and all(one.state != "failure" for one in model):  # else that is why
            yield engine
    yield node_checks.clock(machine.clock_synchronised(), time.time())
    if settings is not None:
        failing = (said or {}).get("disk")
        if failing is not None:
            yield node_checks.unwritable(folder, str(failing))
        else:
            yield node_checks.disk(folder, settings.journal.max_bytes)
        if folder.in_memory:
            yield node_checks.in_memory(folder)
    yield from node_checks.service(unit, gpu=settings is not None and settings.engine.gpu_layers > 0)


def _said(settings: Settings) -> Mapping[str, Any] | None:
    """What the daemon says of itself, where one runs and we may ask, else nothing; None where it is silent."""
    for place in (settings.control_socket(), usual()):
        try:
            said = order(place, "status", timeout_s=STATUS_S).data
        except SilentError:
            return None
        except NoDaemonError:
            continue
        if said.get("node") == settings.node.id:
            return said
    return {}


def _missed(settings: Settings, said: Mapping[str, Any] | None) -> bool:
    """Whether the daemon says that it has no connection to its broker, for longer than it takes to come back."""
    end = time.monotonic() + BACK_S
    while said is not None and said.get("connected") is False:
        if time.monotonic() > end:
            return True
        time.sleep(LOOK_S)
        said = _said(settings)
    return False


def _choice(reader: VitalsReader, settings: Settings | None) -> tuple[Choice | None, str]:
    allowed = frozenset(os.sched_getaffinity(0))
    try:
        if settings is None:
            return choose(reader.topology(), allowed, None), ""
        engine = settings.engine
        choice = choose(reader.topology(), allowed, engine.core_set())
        threads(choice, engine.decode_threads, engine.prefill_threads)
    except ValueError as error:
        return None, str(error)
    return choice, ""


def _board(
    reader: VitalsReader, found: Board, choice: Choice | None, reason: str, settings: Settings | None
) -> Iterator[Verdict]:
    vitals = reader.read()
    engine = () if choice is None else choice.engine
    yield board_checks.board(found)
    yield board_checks.cores(found, choice, reason)
    caps = Caps() if settings is None else Caps(settings.paths.sys)
    policies = tuple(replace(one, writable=one.writable or caps.given(one.name)) for one in caps.look(engine))
    kept = None if settings is None else decode(Note(settings.paths.state / NOTE).read())
    yield from board_checks.clocks(found, engine, lowered(kept, reader.boot_id(), policies))
    mend = caps.right(policies[0].name if len(policies) == 1 else "policy*")
    yield board_checks.caps(policies, mend, wanted=settings is None or settings.heat.clocks == "auto")
    yield from _heat(vitals, found, settings)
    supply = board_checks.supply(vitals)
    if supply is not None:
        yield supply


def _huge_pages(found: Board, choice: Choice | None, settings: Settings | None) -> Verdict:
    if settings is None:
        return board_checks.huge_pages(huge_pages(Path("/sys")))
    made = None
    if choice is not None:
        made, _ = calibrated(settings, found.name, choice)
    measured = None if made is None else made.huge_pages
    return board_checks.huge_pages(huge_pages(settings.paths.sys), settings.engine.huge_pages, measured)


def _heat(vitals: Vitals, found: Board, settings: Settings | None) -> Iterator[Verdict]:
    """As the daemon will judge it."""
    margins = Margins() if settings is None else of_section(settings.heat)
    trip_c = None if settings is None else settings.heat.trip_c
    vitals = replace(vitals, zones=with_known_trips(vitals.zones, found.name, trip_c))
    yield board_checks.heat(vitals, margins)
    silent = board_checks.sensors(vitals)
    if silent is not None:
        yield silent
    yield board_checks.trips(vitals)


def _library() -> Library:
    try:
        told = describe()
    except EngineError as error:
        return Library(None, str(error), illegal="SIGILL" in str(error))
    sets = frozenset(used_sets(told.system_info))
    return Library(sets, gpus=told.gpus, gpu_backends=frozenset(told.gpu_backends))


def _model(
    settings: Settings,
    found: Board,
    choice: Choice | None,
    state: Folder,
    given: str,
    *,
    running: bool,
    quick: bool,
    tell: Tell,
) -> Iterator[Verdict]:
    tell("the model")
    path, engine = settings.model.path, settings.engine
    try:
        model = model_file.read(path)
    except ModelError as error:
        yield model_checks.file(None, 0, 0, str(error))
        return
    yield model_checks.file(model.shape, model.bytes, model.missing_bytes, "")
    yield model_checks.quantisation(model.shape, str(path))
    if settings.model.sha256 or not model.missing_bytes:  # nobody shall set the hash of a file that was cut
        yield model_checks.sha256(settings.model.sha256, None if quick else _hash(model, tell))
    yield _template(settings.model.chat_template, model)
    room = model_checks.Room(engine.slots, engine.context_max, engine.kv_type)
    total, free = found.memory_total_bytes, found.memory_available_bytes
    yield model_checks.memory(model.shape, room, total, free, running)
    context = model_checks.context(model.shape, room)
    if context is not None:
        yield context
    if choice is not None:
        if state.closed:
            yield unknown("calibration", NOT_TOLD)
        else:
            mend = f"edged calibrate{given}"
            yield model_checks.calibration(*calibrated(settings, found.name, choice), mend)


def _template(configured: Path | None, model: ModelFile) -> Verdict:
    reason = ""
    if configured is not None:
        try:
            template_file.load(configured)
        except ModelError as error:
            reason = str(error)
    return model_checks.template(model.shape, configured=configured is not None, reason=reason)


def _hash(model: ModelFile, tell: Tell) -> str | None:
    try:
        return model_file.sha256(
            model.path, lambda done: tell(f"the model's SHA-256, {done / max(1, model.bytes):.0%}")
        )
    except ModelError:
        return None  # it went away meanwhile; the next look finds that


def _network(settings: Settings, *, may_log_in: bool, missed: bool) -> Iterator[Verdict]:
    mqtt, face = settings.mqtt, settings.http
    files = [mqtt.password_file, *(() if mqtt.tls is None else (mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key))]
    if any(path is not None and hidden(path) for path in files):
        yield unknown("broker", NOT_TOLD)
    else:
        yield from _broker(settings, may_log_in=may_log_in, missed=missed)
    if face.enabled and face.tls is not None and not hidden(face.tls.cert):
        for one in certificates(face.tls.cert):
            yield broker_checks.certificate(one, time.time())


def _broker(settings: Settings, *, may_log_in: bool, missed: bool) -> Iterator[Verdict]:
    mqtt = settings.mqtt
    try:
        password = mqtt.password()
    except SettingsError as error:
        yield failure(
            "broker", str(error), "put it there; if it is a credential of systemd: sudo edged doctor"
        )
        return
    answer = probe(
        Asked(
            host=mqtt.host,
            port=mqtt.port,
            client_id=f"edged-{settings.node.id}",
            session_expiry_s=mqtt.session_expiry_s,
            username=mqtt.username,
            password=password,
            tls=None if mqtt.tls is None else Tls(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key),
        ),
        log_in=may_log_in,
    )
    address, wanted = f"{mqtt.host}:{mqtt.port}", not settings.http_alone
    yield broker_checks.broker(address, answer, mqtt.host, wanted=wanted, missed=missed)
    if mqtt.tls is None:
        yield broker_checks.plain(mqtt.host, local=is_loopback(mqtt.host))
    else:
        found = certificates(mqtt.tls.ca, authorities=True)
        found += [] if mqtt.tls.cert is None else certificates(mqtt.tls.cert)
        found = [one for one in found if not one.reason or one.name not in answer.reason]
        for one in [*([] if answer.server is None else [answer.server]), *found]:
            yield broker_checks.certificate(one, time.time())


def _port(settings: Settings) -> Iterator[Verdict]:
    """Whether another program has the port of the HTTP face; what `edged run` ends for is told of the settings."""
    http = settings.http
    try:
        from edged.adapters.http.server import Listening, bind  # noqa: PLC0415 - an extra

        bind(Listening(http.host, http.port, http.connections)).close()
    except NotNowError as error:
        yield node_checks.port(http.port, str(error).partition("; ")[0].removeprefix("http.port: "))
    except (ModuleNotFoundError, SettingsError):
        return


def _active(unit: Unit | None) -> bool:
    return unit is not None and unit.properties.get("ActiveState") == "active"
