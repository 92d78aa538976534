"""A whole node with an operator, drawn by lot: what `desk_mix` does, behind the real dispatcher and its keeper.

Real are, beside what is there, node, supervision, membership of pools, operators' orders, settings at run time and
bulletin; drawn by lot are orders, reloads, pools' questions, models that load, fail and crash, and what the broker
says to subscriptions. What must hold stands in `unit/test_node_mixes.py`.
"""

from __future__ import annotations

import json
import queue
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from configured import configured
from desk_mix import DEADLINE_S, Mix
from desk_rig import TOPICS
from random_engine import Gone, RandomEngine

from edged import settings, tuning
from edged.adapters.note import Note
from edged.adapters.vitals import Caps
from edged.core.admission import Load
from edged.core.heat.heat import Heat
from edged.core.heat.margins import Margins
from edged.core.heat.policy import Ceiling
from edged.core.link import Connected, Disconnected, Outgoing, Subscribed, Unsubscribed
from edged.core.question import Properties
from edged.core.records import Depth
from edged.core.vitals import Vitals
from edged.engine.client import EngineGone, EngineSaid
from edged.engine.messages import Configure, LoadFailed, ModelInfo, Order, Ready
from edged.errors import SettingsError
from edged.node.admin import Admin
from edged.node.bulletin import Bulletin
from edged.node.clocks import Clocks
from edged.node.events import ReloadAsked
from edged.node.feeding import Feeding
from edged.node.heat import HOT, Thermostat
from edged.node.homeassistant import Discovery
from edged.node.lifecycle import Lifecycle
from edged.node.node import Node
from edged.node.outbox import Answered
from edged.node.pools import Membership
from edged.node.sharing import Orders
from edged.node.speed import Speed
from edged.node.supervision import Supervision
from edged.node.telling import Telling
from edged.node.vitals_thread import VitalsThread

POOLS = ("hall", "lab")
MODELS = ("good", "other", "bad", "crash")
"""Files: two that load, one that is refused, one that takes the process down."""
NODE = TOPICS.info.removesuffix("/info")
EVER_S = 1e9


@dataclass
class RandomProcess:
    """The engine's process, as its keeper finds it: what it loads comes of the file's name.

    Attributes:
        engine: what runs in it.
        emit: the node's inbox.
    """

    engine: RandomEngine
    emit: Callable[[object], None]
    run: int = 0
    setup: Configure = field(default_factory=configured)
    code: int = 0
    failed: bool = False

    def __post_init__(self) -> None:
        self.engine.tell = self.say

    def say(self, report: object) -> None:
        """Tell the daemon something."""
        gone = isinstance(report, Gone)
        self.emit(EngineGone(self.run, self.code) if gone else EngineSaid(self.run, report))  # type: ignore[arg-type]

    def start(self, setup: Configure) -> None:
        """Begin a process."""
        assert not self.engine.alive, "there is a process already"
        self.run, self.setup, self.failed = self.run + 1, setup, False
        self.engine.alive, self.engine.ready = True, False

    def send(self, order: Order) -> None:
        """Take an order."""
        self.engine.send(order)

    def kill(self) -> None:
        """End it at once."""
        self.end(-9)

    def end(self, code: int) -> None:
        """End it, with this code."""
        if self.engine.alive:
            self.code = code
            self.engine.die()
            self.engine.ready = False

    def load(self) -> None:
        """Go on with loading."""
        if not self.engine.alive or self.engine.ready:
            return
        name = Path(self.setup.model_path).stem
        if self.failed:
            self.end(0)
        elif name == "bad":
            self.failed = True
            self.say(LoadFailed(f"{name} is no model"))
        elif name == "crash":
            self.end(-11)
        else:
            self.engine.ready = True
            model = ModelInfo(name, "a", "q", 1, 1, 1, None, reasoning=False, kv_bytes_per_token=1)
            self.say(Ready(model, (0,), 1, 1, 1.0, 1.0, 0.1))


@dataclass
class Broker:
    """Who is subscribed; it answers late, and only to the latest wish for a filter, as `adapters.mqtt` tells it."""

    subscribed: set[str] = field(default_factory=set)
    wanted: dict[str, bool] = field(default_factory=dict)
    wishes: deque[tuple[str, bool]] = field(default_factory=deque)

    def subscribe(self, topic: str) -> None:
        """A wish."""
        self.wanted[topic] = True
        self.wishes.append((topic, True))

    def unsubscribe(self, topic: str) -> None:
        """A wish."""
        self.wanted[topic] = False
        self.wishes.append((topic, False))

    def connected(self) -> None:
        """All is said again."""
        self.wishes = deque(self.wanted.items())

    def answer(self) -> Iterable[Subscribed | Unsubscribed]:
        """Carry out the oldest wish."""
        if self.wishes:
            topic, wanted = self.wishes.popleft()
            (self.subscribed.add if wanted else self.subscribed.discard)(topic)
            if self.wanted[topic] is wanted:
                yield Subscribed(topic) if wanted else Unsubscribed(topic)


class Systemd:
    """Nobody."""

    def ready(self) -> bool:
        """Nothing."""
        return True

    def watchdog(self) -> bool:
        """Nothing."""
        return True

    def extend_start(self, seconds: float) -> bool:
        """Nothing."""
        return seconds > 0

    def status(self, text: str) -> bool:
        """Nothing."""
        return bool(text)

    def reloading(self) -> bool:
        """Nothing."""
        return True

    def stopping(self) -> bool:
        """Nothing."""
        return True


@dataclass
class Ordered:
    """An order over MQTT and its results; `life` of the node that got it last."""

    op: str
    fields: dict[str, Any]
    life: int
    results: list[dict[str, Any]] = field(default_factory=list)


class NodeMix(Mix):
    """One run. Arguments as of `Mix`.

    Attributes:
        orders: by transaction.
        retained: the newest text of each topic.
        events: names of what happened to the node, in this life.
        restarts: transactions that had the node end.
    """

    bound: ClassVar[dict[str, int]] = {"queue_jobs": 64, "queue_bytes": 1 << 20, "client_jobs": 64}

    def __init__(self, seed: int, path: Path) -> None:
        self.folder = path.parent
        for name in MODELS:
            (self.folder / f"{name}.gguf").write_bytes(b"GGUF")
        self.broker = Broker()
        self.orders: dict[str, Ordered] = {}
        self.retained: dict[str, bytes] = {}
        self.restarts: list[str] = []
        lot = random.Random(-1 - seed)  # noqa: S311 - repeatable, not secret
        self.first = lot.choice(["good", "good", "good", "bad", "crash"])
        self.obeys = lot.choice([0.1, 0.5, 1.0])
        super().__init__(seed, path)
        more: tuple[tuple[float, Callable[[], None]], ...] = (
            (2, self.order),
            (0.3, self.reload),
            (3, self.broker_subscribes),
            (3, self.wait),
        )
        self.weights += tuple(weight for weight, _ in more)
        self.acts += tuple(act for _, act in more)

    def make_engine(self, tell: Callable[[object], None]) -> Orders:
        """The engine behind its keeper."""
        engine = RandomEngine(self.rng, self.clock, self.shape.slots, tell, self.shape.needs_s)
        self.engine, self.process = engine, RandomProcess(engine, tell)
        setup = configured(model_path=str(self.folder / f"{self.first}.gguf"), slots=self.shape.slots)
        self.supervision = Supervision(self.process, setup, 256, EVER_S, EVER_S, self.clock)
        return self.supervision

    def begin(self) -> None:
        """Begin a life of the node."""
        super().begin()
        self.stopped, self.events = False, list[str]()
        self.broker.wishes.clear()
        self.broker.wanted.clear()
        line, clock, supervision = self.exchange, self.clock, self.supervision
        bulletin = Bulletin(TOPICS, line, 3600.0, Discovery(TOPICS, line, Note(self.folder / "ha")))
        current = self.settings_file(POOLS[:1])
        self.membership = Membership(TOPICS, self.broker, current.node.pools, bulletin.tell_event)
        about: dict[str, Any] = {
            "node": "n1",
            "version": "0",
            "cores": {},
            "limits": tuning.limits_told(current.limits),
        }
        vitals = VitalsThread(Vitals, current.heat.interval_s, self.inbox.append)
        self.tunes = tuning.Tuning(
            current,
            current,
            self.settings_anew,
            self.intake,
            self.desk,
            self.membership,
            bulletin,
            vitals,
            about,
        )
        self.admin = Admin(
            self.desk,
            self.membership,
            supervision,
            enabled=True,
            models=self.folder,
            tunes=self.tunes,
            restarted=Note(self.folder / "restarted"),
            tell=bulletin.tell_event,
            stop=self.stop,
            now=self.now,
            clock=clock,
        )
        self.intake.dealt, self.intake.ordered = self.membership.dealt, self.admin.arrived
        setup = supervision.setup
        ceiling = Ceiling(setup.context, 256, setup.slots, 1, 1)
        clocks = Clocks(Caps(self.folder / "sys"), (), Note(self.folder / "clocks"), None)
        thermostat = Thermostat(
            Heat(Margins()), lambda: ceiling, supervision, self.membership, bulletin.tell_event, clocks
        )
        systemd, speed = Systemd(), Speed()
        telling = Telling(
            self.desk,
            self.outbox,
            supervision,
            thermostat,
            bulletin,
            self.membership,
            self.admin,
            systemd=systemd,
            about=about,
            journal_depth=lambda: Depth(0, 0, 0, 0, 0, None),
            memory=dict,
            speed=speed,
            clock=clock,
        )
        self.admin.status, self.admin.tell_info = telling.status, telling.info
        self.node = Node(
            inbox=queue.SimpleQueue(),
            desk=self.desk,
            intake=self.intake,
            controls=self.controls,
            outbox=self.outbox,
            supervision=supervision,
            thermostat=thermostat,
            bulletin=bulletin,
            membership=self.membership,
            admin=self.admin,
            reload=self.tunes.reload,
            feeding=Feeding(systemd, EVER_S),
            telling=telling,
            lifecycle=Lifecycle(
                supervision, self.desk, self.membership, self.admin, thermostat, bulletin, speed, telling
            ),
            slots=self.shape.slots,
            link_beat=clock,
            link_limit_s=1.0,
            clock=clock,
        )
        supervision.start()

    def settings_file(self, pools: tuple[str, ...], heat_s: float = 2.0) -> settings.Settings:
        """What stands in the file."""
        limits = {**self.bound, "deadline_default_s": int(DEADLINE_S), "attempts": self.shape.attempts_max}
        return settings.Settings(
            model={"path": str(self.folder / f"{self.first}.gguf")},  # type: ignore[arg-type]
            node={"id": "n1", "pools": list(pools)},  # type: ignore[arg-type]
            limits=limits,  # type: ignore[arg-type]
            heat={"interval_s": heat_s},  # type: ignore[arg-type]
            cache={"answers": 16, "max_bytes": 65_536},  # type: ignore[arg-type]
        )

    def settings_anew(self) -> settings.Settings:
        """The file, which somebody has edited meanwhile."""
        if self.rng.random() < 0.2:
            raise SettingsError("edged.toml: limits.queue_jobs: 0 is not accepted")
        pools = tuple(pool for pool in POOLS if self.rng.random() < 0.7)
        return self.settings_file(pools, heat_s=self.rng.uniform(0.2, 10.0))

    # what happens ---------------------------------------------------------------------------------------

    def act(self) -> None:
        """Let one thing happen; a node that was told to restart is killed before it has said all."""
        super().act()
        if self.stopped and not self.committing:
            self.journal.kill()
            self.begin()

    @property
    def resting(self) -> bool:
        """Whether nothing is under way; an engine that cannot load tries for ever."""
        waiting = (self.inbox, self.under_way, self.work, self.engine.runs, self.server.runs)
        left = (self.desk.roster, self.outbox, self.broker.wishes)
        settled = self.supervision.phase != "starting" or self.supervision.setup.model_path.endswith(
            "crash.gguf"
        )
        switching = self.admin._switch is not None  # noqa: SLF001 - no public word tells
        out = switching or HOT in self.membership.reasons
        return self.journal.idle and not any((*waiting, *left)) and settled and not out

    def load(self, client_jobs: int) -> Load:
        """As admission sees the node."""
        return self.node.load(client_jobs)

    def stop(self) -> None:
        """The node is to end in order; here it is killed on its way."""
        self.stopped = True

    def handle(self) -> None:
        """The node takes an event."""
        if self.inbox:
            self.node.handle(self.inbox.popleft())  # type: ignore[arg-type]  # all of them are events
            self.node._tick()  # noqa: SLF001 - as `serve` does

    def engine_dies(self) -> None:
        """The engine breaks."""
        if not self.settling and self.rng.random() < self.shape.dies:
            self.process.end(-11)

    def engine_starts(self) -> None:
        """It goes on with loading."""
        self.process.load()

    def away_steps(self) -> None:
        """The larger server goes on, or the board grows hot or cool."""
        super().away_steps()
        hot = self.desk.course.level == "hot" and not self.settling
        (self.membership.leave if hot else self.membership.rejoin)(HOT)
        self.node._tick()  # noqa: SLF001 - as `serve` does

    def connect(self) -> None:
        """The connection was lost and is there again."""
        self.inbox += [Disconnected("lost"), Connected(session_present=True)]
        self.broker.connected()

    def wait(self) -> None:
        """Time passes."""
        self.clock.advance(self.rng.choice([0.01, 0.1, 0.5, 2.0]))
        self.node._tick()  # noqa: SLF001 - as `serve` does

    def broker_subscribes(self) -> None:
        """The broker answers a wish."""
        self.inbox += self.broker.answer()

    def reload(self) -> None:
        """Somebody reloads the settings."""
        if not self.settling:
            self.inbox.append(ReloadAsked())

    # the broker -----------------------------------------------------------------------------------------

    def published(self, message: Outgoing) -> None:
        """The broker gets a message."""
        if not message.topic.startswith(NODE):
            if isinstance(message.token, Answered) and json.loads(message.payload).get("code") == "draining":
                question = self.unacknowledged[message.token.delivery]
                assert not question.topic.startswith("edged/v1/pool/"), (
                    "what a pool has dealt is nobody else's"
                )
            super().published(message)
            return
        self.retained[message.topic] = message.payload
        body = json.loads(message.payload) if message.payload.startswith(b"{") else {}
        if message.topic.endswith("/result"):
            self.orders[body["transaction"]].results.append(body)
        elif message.topic == TOPICS.event:
            self.events.append(body["event"])

    def deliver(self, topic: str, payload: dict[str, Any], properties: Properties | None = None) -> None:
        """The broker hands a device's message over; some questions go to a pool."""
        dealt = [pool for pool in POOLS if TOPICS.pool(pool) in self.broker.subscribed]
        if "/ask/" in topic and dealt and self.rng.random() < 0.3:
            topic = f"edged/v1/pool/{self.rng.choice(dealt)}/ask/{topic.rpartition('/')[2]}"
        super().deliver(topic, payload, properties)

    # the operator ---------------------------------------------------------------------------------------

    def order(self) -> None:
        """An operator gives an order."""
        rng = self.rng
        if self.settling or rng.random() >= self.obeys:
            return
        op = rng.choice(
            ["drain", "undrain", "undrain", "config", "config", "model", "model", "cache_clear", "restart"]
        )
        fields: dict[str, Any] = {}
        if op == "model":
            fields = {"path": f"{rng.choice(MODELS)}.gguf"}
        elif op == "config":
            fields = {"set": rng.choice(CHANGES)}
        elif op == "restart" and rng.random() < 0.7:
            return
        transaction = f"t{len(self.orders)}"
        self.orders[transaction] = Ordered(op, fields, self.life)
        self.deliver(TOPICS.admin(op), {"transaction": transaction, **fields})


CHANGES: tuple[dict[str, Any], ...] = (
    {"limits.attempts": 1},
    {"limits.attempts": 3},
    {"cache.answers": 0},
    {"cache.answers": 16},
    {"cache.max_bytes": 1024},
    {"limits.queue_jobs": 4, "limits.client_jobs": 4},
    {"limits.queue_jobs": 64, "limits.client_jobs": 64},
    {"node.pools": []},
    {"node.pools": ["hall"]},
    {"node.pools": ["lab", "hall"]},
    {"engine.slots": 1},
)
