"""The shapes of what a node says of itself: `info`, `health` and `event`, as they stand on the wire. Pure.

`edged.node.news` fills them in; metrics, Home Assistant and the published specification read them from here. A
field that is not known is absent on the wire and None here. Newer nodes may say more than is read here.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edged.core.vitals import Level

Phase = Literal["starting", "ready", "failed", "broken"]


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all shapes share."""


class Trip(Shape, frozen=True):
    """A trip point of a zone, degrees Celsius; a Raspberry Pi's firmware's, and `heat.trip_c`, are among them.

    Attributes:
        kind: the kernel's word: `active` starts a fan, `passive` throttles, `hot` warns, `critical` switches off.
    """

    kind: str
    temp_c: float
    hysteresis_c: float | None = None


class Zone(Shape, frozen=True):
    """A thermal zone; `temp_c` is absent where the sensor says nothing plausible."""

    temp_c: float | None = None
    trips: list[Trip] = []


class Clock(Shape, frozen=True):
    """The clock that these cores share.

    Attributes:
        now_hz: the clock asked for.
        max_hz: the highest that is allowed at the moment.
        hardware_max_hz: the highest that the hardware has.
        governor: cpufreq's.
    """

    cores: list[int]
    now_hz: int | None = None
    max_hz: int | None = None
    hardware_max_hz: int | None = None
    governor: str | None = None


class Board(Shape, frozen=True):
    """What was read from the board; what it has no sensor for is absent.

    Attributes:
        zones: thermal zones by the kernel's name.
        clocks: one for each group of cores that change it together.
        headroom_c: degrees to the nearest trip point, the smallest over all zones; negative beyond it.
        throttled: the kernel holds a clock below the hardware's maximum.
        under_voltage: the supply fell too low within the last two seconds (Raspberry Pi).
        load_1m: load average of a minute.
        memory_total_bytes: of the board.
        memory_available_bytes: what can be had without swapping.
    """

    zones: dict[str, Zone] = {}
    clocks: list[Clock] = []
    headroom_c: float | None = None
    throttled: bool | None = None
    under_voltage: bool | None = None
    load_1m: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None


class Heat(Shape, frozen=True):
    """What heat does to the engine just now.

    Attributes:
        zone: the one that is nearest to its trip point; absent where no sensor tells.
        target_c: temperature that the controller holds in that zone.
        effort: share of its power that the engine may spend, 1 for all of it.
        slots, decode_threads, prefill_threads: what the engine may use of them.
        pace: share of the time that its passes may fill.
        clock_cap_hz: highest clock of the engine's cores, by cores as the kernel writes them; absent where heat
            leaves the clocks alone, see `clocks` of `info`.
        paused: whether running answers stand still.
        rise_c_per_s: the zone's present rise, negative while it cools.
        time_to_trip_s: until it meets its trip point at that rise; absent while it does not rise.
        retry_after_ms: when a refused question may come in; absent while none is refused for heat.
        throttles: times that the kernel began to hold a clock down, in this boot; seen by the daemon.
        under_voltages: times that the supply fell too low, in this boot; seen by the daemon.
        sensors: sensors that are not believed, and why: `missing`, `stuck`, `jumping`.
    """

    zone: str | None = None
    target_c: float | None = None
    effort: float | None = None
    slots: int | None = None
    decode_threads: int | None = None
    prefill_threads: int | None = None
    pace: float | None = None
    clock_cap_hz: dict[str, int] = {}
    paused: bool | None = None
    rise_c_per_s: float | None = None
    time_to_trip_s: int | None = None
    retry_after_ms: int | None = None
    throttles: int | None = None
    under_voltages: int | None = None
    sensors: dict[str, str] = {}


class Counts(Shape, frozen=True, omit_defaults=False):
    """What came and went since the daemon's start.

    Attributes:
        accepted: questions taken into the journal.
        done, cancelled, errors: how questions ended.
        refused: questions turned away at the door.
        duplicates: second copies of a question.
        dropped: messages that nobody could be answered for.
        retained_ignored: retained questions, which are never asked.
        cached: questions answered with what was computed for another one.
        tokens: tokens of all answers.
        refusals: `refused` by error code.
        failures: `errors` by error code.
    """

    accepted: int = 0
    done: int = 0
    cancelled: int = 0
    errors: int = 0
    refused: int = 0
    duplicates: int = 0
    dropped: int = 0
    retained_ignored: int = 0
    cached: int = 0
    tokens: int = 0
    refusals: dict[str, int] = {}
    failures: dict[str, int] = {}


class JournalDepth(Shape, frozen=True, omit_defaults=False):
    """How full the journal is.

    Attributes:
        unfinished: questions accepted and not finished.
        outbox: terminal messages that the broker has not acknowledged.
        sessions: conversations that are kept.
        bytes: on disk.
        failing: why the disk refuses, while it does, or for how long it has not answered.
    """

    unfinished: int = 0
    outbox: int = 0
    sessions: int = 0
    bytes: int = 0
    failing: str | None = None


class Drafts(Shape, frozen=True, omit_defaults=False):
    """Tokens that were guessed and computed beside the next one.

    Attributes:
        tokens: since the engine's start.
        right: those of them that the model then chose.
    """

    tokens: int = 0
    right: int = 0


class PrefixStore(Shape, frozen=True, omit_defaults=False):
    """Prompts on disk as computed.

    Attributes:
        bytes: of all files.
        loads: how often one was read since the engine's start.
    """

    bytes: int = 0
    loads: int = 0


class Memory(Shape, frozen=True):
    """Resident memory of the two processes."""

    daemon_rss_bytes: int | None = None
    engine_rss_bytes: int | None = None


class Membership(Shape, frozen=True):
    """Which pools deal this node questions just now.

    Attributes:
        inside: pools that it is in; `in` on the wire.
        out: pools of its settings that it is not in.
        reasons: why it is out of all of them, the oldest first: `loading`, `full`, `hot`, `draining`, `stopping`.
    """

    inside: list[str] = msgspec.field(default_factory=list, name="in")
    out: list[str] = []
    reasons: list[str] = []


class Upstream(Shape, frozen=True):
    """The larger server, where one is set.

    Attributes:
        state: `closed` takes questions; `open` failed and is left alone; `probing` is being tried.
        shapes: the same for questions with a `response_format`, which a server may not do.
        active: questions there just now.
        asked: questions sent there, since the daemon's start.
        done, cancelled, failed: how they ended; what failed is answered by the board where it can.
        busy_s: from sending to the end, of all that are done together.
        reason: of the latest failure; absent after a success.
    """

    state: Literal["closed", "open", "probing"]
    shapes: Literal["closed", "open", "probing"] = "closed"
    active: int = 0
    asked: int = 0
    done: int = 0
    cancelled: int = 0
    failed: int = 0
    busy_s: float = 0.0
    reason: str | None = None


class Health(Shape, frozen=True):
    """How a node is.

    Attributes:
        level: how hot the board is, in one word.
        reason: why it is that hot.
        uptime_s: of the daemon.
        engine: `ready` answers; `starting` keeps questions waiting; `failed` has no usable model; `broken` keeps
            crashing.
        engine_restarts: since the daemon's start.
        queue: questions waiting.
        active: questions being answered.
        counts: since the daemon's start.
        context: tokens of prompt and answer together that a question may have just now.
        kv_tokens: tokens in the key-value cache.
        prefix_store: prompts on disk as computed.
        drafts: tokens that were guessed.
        decode_tokens_per_s: written lately, all answers together.
        prefill_tokens_per_s: read lately.
        calibrated_decode_tokens_per_s: of one question alone, as `edged calibrate` measured it.
        calibrated_share: of that rate, when one question ran alone on a cool board the last time.
        slow: a cool board has been below 70 % of it for some time.
        membership: where the node stands with its pools.
        draining: it takes no new questions on.
        upstream: the larger server.
    """

    level: Level = "cool"
    reason: str | None = None
    uptime_s: int | None = None
    engine: Phase = "starting"
    engine_restarts: int = 0
    queue: int = 0
    active: int = 0
    counts: Counts = Counts()
    context: int | None = None
    kv_tokens: int | None = None
    prefix_store: PrefixStore | None = None
    drafts: Drafts | None = None
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    calibrated_decode_tokens_per_s: float | None = None
    calibrated_share: float | None = None
    slow: bool | None = None
    membership: Membership | None = None
    draining: bool = False
    journal: JournalDepth = JournalDepth()
    memory: Memory = Memory()
    heat: Heat = Heat()
    board: Board = Board()
    upstream: Upstream | None = None


class Model(Shape, frozen=True):
    """The model that answers, from its file's own metadata.

    Attributes:
        sha256: of the file, where the settings name it.
        context_trained: tokens that the model was trained for.
        reasoning: whether it thinks before it answers.
    """

    name: str
    architecture: str
    quantisation: str
    sha256: str | None = None
    bytes: int | None = None
    parameters: int | None = None
    context_trained: int | None = None
    reasoning: bool | None = None


class Cores(Shape, frozen=True):
    """Where the node computes.

    Attributes:
        engine: cores that the engine is pinned to.
        daemon: cores that the daemon may use.
        reason: why these.
        allowed: as the kernel writes the daemon's.
    """

    engine: list[int]
    daemon: list[int]
    reason: str
    allowed: str


class Rates(Shape, frozen=True):
    """Speeds that were measured before the first question; `source` tells how."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    source: str


class Clocks(Shape, frozen=True, omit_defaults=False):
    """Whether heat may lower the clocks of the engine's cores.

    Attributes:
        lowered: it does so when the board is warm.
        reason: why not.
        mend: the command that would allow it.
    """

    lowered: bool
    reason: str | None = None
    mend: str | None = None


class BoundsTold(Shape, frozen=True):
    """What one question, one client and all together may take."""

    payload_bytes: int
    queue_jobs: int
    client_jobs: int


class Info(Shape, frozen=True):
    """Who a node is.

    Attributes:
        contract: version of the wire contract.
        boot_id: names one run of the kernel.
        board: the device tree's model name.
        pools: pools whose questions it shares.
        membership: where it stands with them.
        context_max, context_min: tokens of prompt and answer together, cool and when heat has taken all it may.
        slots: questions answered at the same time.
        engine: see `health`.
        reason: why the engine is not ready.
        capabilities: what a question may ask for.
        tools: names of the node's own tools.
    """

    node: str
    version: str
    contract: int
    boot_id: str | None = None
    board: str | None = None
    pools: list[str] = []
    membership: Membership | None = None
    context_max: int | None = None
    context_min: int | None = None
    slots: int | None = None
    decode_threads: int | None = None
    prefill_threads: int | None = None
    cores: Cores | None = None
    clocks: Clocks | None = None
    limits: BoundsTold | None = None
    capabilities: list[str] = []
    tools: list[str] = []
    engine: Phase = "starting"
    reason: str | None = None
    model: Model | None = None
    rates: Rates | None = None


class Event(Shape, frozen=True):
    """Something that happened; what else it says depends on the event.

    Attributes:
        event: its name, such as `level_changed`, `engine_ready`, `engine_gone`, `model_failed`, `pools_left`.
        node: where.
    """

    event: str
    node: str


def health(told: dict[str, Any]) -> Health:
    """Read a health object; what is not known here is passed over.

    Raises:
        msgspec.ValidationError: a field has another type than it should.
    """
    return msgspec.convert(told, Health, strict=False)


def info(told: dict[str, Any]) -> Info:
    """Read an info object; what is not known here is passed over.

    Raises:
        msgspec.ValidationError: a field has another type than it should.
    """
    return msgspec.convert(told, Info, strict=False)
