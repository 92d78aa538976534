"""A node's way in and out with everything around it drawn by lot, and a record of what its devices see.

Real are intake, controls, desk, sharing, away, outbox, exchange and the journal on SQLite; drawn by lot are the
engine, the larger server, the broker, the disk, time, and devices over MQTT and HTTP. All of a mix follows from its
seed. Two parts stand in `random_engine` and `stepped_journal`, what must hold in `mix_checks`.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import desk_rig
from desk_rig import TOPICS
from random_engine import TOO_LATE, Gone, RandomEngine, RandomServer, Up
from scripted import Clock
from stepped_journal import SteppedJournal, disk_full

from edged.adapters.judge import Judge
from edged.core import records, upstream
from edged.core.admission import Bound, Load
from edged.core.answer_cache import AnswerCache
from edged.core.link import INSIDE, Arrived, Connected, Delivered, Delivery, Outgoing, Undelivered
from edged.core.parsing import Bounds
from edged.core.question import Properties
from edged.core.records import Instant
from edged.core.tools import Call
from edged.core.topics import INSIDE as HTTP
from edged.core.topics import NAMED, PASSING, is_passing
from edged.engine import messages
from edged.node.away import Away
from edged.node.blame import Blame
from edged.node.calling import Calling
from edged.node.controls import Controls
from edged.node.course import Course
from edged.node.desk import Desk
from edged.node.exchange import Exchange
from edged.node.forgetting import Forgetting
from edged.node.giving import Giving
from edged.node.intake import Intake
from edged.node.outbox import Answered, Outbox, Owed
from edged.node.recovery import recover
from edged.node.replies import Replies
from edged.node.roster import Roster
from edged.node.sessions import Sessions
from edged.node.sharing import Orders, Sharing
from edged.tools.client import ToolsRan

ENDS = frozenset({"done", "error", "cancelled"})
FORGETTER = "f"
"""Id of the orders to forget a session."""
POLICY = upstream.Policy("host", "big", frozenset({"asked", "hot", "context"}))
DEADLINE_S = 60.0
"""Of questions that name none."""
SETTLED_AFTER = 20_000
"""Steps in which a mix must come to rest once nothing new happens."""

Key = tuple[str, str]
"""Client and id of a question."""


@dataclass(frozen=True)
class Shape:
    """What one mix is like: how likely things are, and bounds.

    Attributes:
        again: a device asks a question again.
        session: a question belongs to a session.
        tools: it has tools.
        inside: it comes over HTTP.
        asks, cancels, dies, full: of their turns, how many are used, see `Mix`.
        writes: how quick the disk is.
        kills: of all steps, after how many the node is killed and begins anew.
        needs_s: see `RandomEngine`.
        away: there is a larger server.
        moves: devices ask again from another topic.
        forgets: devices have sessions forgotten.
        clients, sessions: names, one character each; of the former those over MQTT.
        slots, attempts_max: as in the settings.
    """

    again: float
    session: float
    tools: float
    inside: float
    asks: float
    cancels: float
    dies: float
    full: float
    writes: float
    kills: float
    needs_s: float
    away: bool
    moves: bool
    forgets: bool
    clients: str
    sessions: str
    slots: int
    attempts_max: int

    @classmethod
    def drawn(cls, rng: random.Random) -> Shape:
        """One of them."""
        return cls(
            again=rng.choice([0.1, 0.25, 0.5]),
            session=rng.choice([0.2, 0.35, 0.9]),
            tools=rng.choice([0.1, 0.3, 0.8]),
            inside=rng.choice([0.0, 0.0, 0.4]),
            asks=rng.choice([0.3, 1.0]),
            cancels=rng.choice([0.3, 1.0]),
            dies=rng.choice([0.1, 0.5, 1.0]),
            full=rng.choice([0.0, 0.4, 0.8]),
            writes=rng.choice([0.1, 0.3, 1.0]),
            kills=rng.choice([0.0, 0.002]),
            needs_s=rng.choice([0.0, 1.0, 4.0]),
            away=rng.choice([False, False, True]),
            moves=rng.choice([False, False, True]),
            forgets=rng.choice([False, False, True]),
            clients=rng.choice(["a", "ab"]),
            sessions=rng.choice(["s", "su"]),
            slots=rng.choice([1, 2, 4]),
            attempts_max=rng.choice([1, 3, 3]),
        )


@dataclass
class Asked:
    """A question and what became of it.

    Attributes:
        fields: as it was asked.
        refusals: how often it was turned away.
        stored: the journal has told that it stands there.
        cancelled: its device has taken it back, or hung up.
        told: all that was said of it once it was stored, each with the life of the node that said it.
        ends: its last message, as often as it was handed over.
        listens: where its device waits for the end; None once it was told there.
        deadline: when it may be over at the earliest.
    """

    fields: dict[str, Any]
    deadline: float
    refusals: int = 0
    stored: bool = False
    cancelled: bool = False
    told: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    listens: str | None = None


def is_final(end: dict[str, Any]) -> bool:
    """Whether this is the question's last word; an error is not that says when to ask again, or for how long."""
    return end["type"] in ENDS and end.get("code") != "expired" and "retry_after_ms" not in end


def key_of(topic: str) -> Key:
    """Whose topic it is, and of which question."""
    _, _, _, client, _, name = topic.split("/")
    return client, name


class Toolbox(desk_rig.Toolbox):
    """The tool t; `work` takes the results."""

    def __init__(self, work: list[ToolsRan]) -> None:
        super().__init__()
        self.work = work

    def run(self, number: int, run: int, calls: tuple[Call, ...], node: str, vitals: dict[str, Any]) -> None:
        """Have the results ready; the mix hands them over."""
        del node, vitals
        self.work.append(ToolsRan(number, run, tuple("r" for _ in calls)))

    def give_up(self, run: int) -> None:
        """Nobody waits for these any more; they may be done already."""
        self.work[:] = [done for done in self.work if done.run != run]


class Line:
    """The broker's line, always up; single messages come back undelivered."""

    connected = True

    def __init__(self, mix: Mix) -> None:
        self.mix = mix

    def publish(self, message: Outgoing) -> None:
        """Take a message."""
        self.mix.published(message)

    def acknowledge(self, delivery: Delivery) -> None:
        """The broker may forget it."""
        self.mix.unacknowledged.pop(delivery, None)


class Box:
    """Who waits over HTTP for the answer to one question."""

    def __init__(self, mix: Mix, key: Key) -> None:
        self.mix, self.key = mix, key

    def put(self, payload: bytes, *, droppable: bool) -> None:
        """Take a reply."""
        del droppable
        self.mix.mailed(self.key, json.loads(payload))


class Mix:
    """One run of random events.

    Args:
        seed: all of it follows from this number.
        path: of the journal.

    Attributes:
        asked: all questions, in their order.
        unacknowledged: what the broker keeps, and brings again to a new life.
        open: who waits over HTTP.
        finished: how often the journal told the end of a number.
        life: lives of the node so far.
    """

    def __init__(self, seed: int, path: Path) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.shape, self.clock, self.path = Shape.drawn(self.rng), Clock(), path
        self.asked: dict[Key, Asked] = {}
        self.unacknowledged: dict[Delivery, Arrived] = {}
        self.finished: dict[int, int] = {}
        self.full = self.settling = self.committing = False
        self.life = self.deliveries = 0
        self.forget = ""
        self.begin()
        # Each with its weight: about hundredths of all steps.
        acts: tuple[tuple[float, Callable[[], None]], ...] = (
            (35, self.handle),
            (10, self.engine_reads),
            (15, self.engine_steps),
            (10, self.ask),
            (3, self.steer),
            (0.3, self.hang_up),
            (3, self.away_steps),
            (2, self.tools_end),
            (5, self.broker_answers),
            (1, self.connect),
            (1.5, self.engine_dies),
            (5, self.engine_starts),
            (3, self.wait),
            (1, self.disk_fills),
            (9, self.write),
        )
        self.weights, self.acts = zip(*acts, strict=True)

    def begin(self) -> None:
        """Begin a life of the node, with what its journal holds and what the broker has kept."""
        self.life += 1
        self.inbox: deque[object] = deque()
        self.under_way: list[Outgoing] = []
        self.work: list[ToolsRan] = []
        self.open: dict[Key, Box] = {}
        shape, clock, tell = self.shape, self.clock, self.inbox.append
        self.journal = SteppedJournal(self.path, self.heard, self.now, self.meanwhile)
        recovered = self.journal.open()
        orders = self.make_engine(tell)
        self.server = RandomServer(self.rng, clock, tell)
        self.exchange = Exchange(Line(self), TOPICS.is_inside, tell)
        course = Course(Replies(TOPICS, self.exchange, clock), self.journal, clock)
        sharing = Sharing(course, orders, clock, AnswerCache(16, 65_536, 3600.0))
        self.outbox = Outbox(self.exchange, self.journal, TOPICS.is_inside)
        roster = Roster()
        giving = Giving(
            course,
            orders,
            sharing,
            roster,
            Sessions(),
            Calling(TOPICS.node, Toolbox(self.work)),
            Blame(course, roster, shape.attempts_max),
            away=Away(self.server, POLICY, clock, Judge()) if shape.away else None,
        )
        self.desk = Desk(giving, self.outbox, Forgetting(orders, bool(self.forget), self.note_forget))
        self.controls = Controls(self.desk, self.journal)
        self.intake = Intake(
            self.desk,
            self.controls,
            self.journal,
            Bounds(models=POLICY.names() if shape.away else ()),
            Bound(64, 1 << 20, 64),
            self.load,
            self.now,
            deadline_default_s=DEADLINE_S,
            slots=shape.slots,
        )
        self.takers = self.all_takers()
        recover(self.desk, recovered, "boot", clock(), is_passing)
        self.outbox.owe(recovered.outbox)
        self.inbox.extend(self.unacknowledged.values())

    def make_engine(self, tell: Callable[[object], None]) -> Orders:
        """The engine, and what stands for it at the desk."""
        self.engine = RandomEngine(self.rng, self.clock, self.shape.slots, tell, self.shape.needs_s)
        return self.engine

    def all_takers(self) -> dict[type, Callable[[Any], object]]:
        """Who takes which event, as in `edged.node.node`."""
        desk, intake = self.desk, self.intake
        reports = (
            messages.Prepared,
            messages.Started,
            messages.Piece,
            messages.Ended,
            messages.Refused,
        )
        answers = (upstream.Begun, upstream.Said, upstream.Over, upstream.Broke)
        return {
            **dict.fromkeys(reports, desk.hearing.engine_said),
            messages.PromptsForgotten: lambda _report: desk.forgetting.prompts_forgotten(),
            **dict.fromkeys(answers, desk.hearing.away_said),
            Up: self.engine_up,
            Gone: self.engine_gone,
            ToolsRan: desk.hearing.tools_ran,
            Arrived: intake.arrived,
            Connected: lambda event: self.outbox.connected(session_present=event.session_present),
            Delivered: self.outbox.delivered_one,
            Undelivered: self.outbox.undelivered_one,
            records.Entered: intake.entered,
            records.Accepted: intake.accepted,
            records.Duplicate: intake.duplicate,
            records.Conflict: intake.conflict,
            records.NotKnown: intake.not_known,
            records.Failed: intake.failed,
            records.Finished: self.answer_stored,
            records.AttemptCounted: lambda _event: None,
            records.StatusFound: self.controls.found,
            records.SessionForgotten: self.controls.found,
        }

    # a run ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let things happen, then nothing new any more, until all is at rest."""
        for _ in range(self.rng.randrange(200, 1500)):
            self.act()
            if self.rng.random() < self.shape.kills:
                self.journal.kill()
                self.begin()
        self.settling, self.full = True, False
        for _ in range(SETTLED_AFTER):
            if self.resting:
                break
            self.act()

    def act(self) -> None:
        """Let one thing happen."""
        (act,) = self.rng.choices(self.acts, self.weights)
        act()

    @property
    def resting(self) -> bool:
        """Whether nothing is under way: what must be over by now, the checks say."""
        engine, server, desk = self.engine, self.server, self.desk
        waiting = (self.inbox, self.under_way, self.work, engine.runs, server.runs, desk.roster, self.outbox)
        return self.journal.idle and not any(waiting) and engine.ready

    def note_forget(self, text: str) -> None:
        """The node notes what it must not forget to have forgotten."""
        self.forget = text

    def now(self) -> Instant:
        """The present moment."""
        return Instant("boot", self.clock())

    def load(self, client_jobs: int) -> Load:
        """As admission sees the node."""
        engine = self.engine
        return Load(
            len(self.desk.roster), 0, client_jobs, 1.0, engine.slots, "ready" if engine.ready else "starting"
        )

    # what happens ---------------------------------------------------------------------------------------

    def handle(self) -> None:
        """The node takes an event."""
        if self.inbox:
            event = self.inbox.popleft()
            self.takers[type(event)](event)

    def engine_up(self, _event: Up) -> None:
        """The node hears that the engine is there."""
        self.engine.ready = True
        self.desk.engine_ready("m")

    def engine_gone(self, _event: Gone) -> None:
        """The node hears that the engine is gone."""
        self.engine.mourn()
        self.desk.engine_gone(crashed=self.rng.random() < 0.8)

    def answer_stored(self, event: records.Finished) -> None:
        """The node hears that an answer stands in the journal."""
        self.desk.kept(event)
        self.intake.unpark()

    def engine_reads(self) -> None:
        """The engine takes an order."""
        self.engine.read()

    def engine_steps(self) -> None:
        """The engine goes on."""
        self.engine.step()

    def engine_dies(self) -> None:
        """The engine breaks."""
        if not self.settling and self.rng.random() < self.shape.dies:
            self.engine.die()

    def engine_starts(self) -> None:
        """Another process takes its place."""
        self.engine.start()

    def away_steps(self) -> None:
        """The larger server goes on, or the board grows hot or cool."""
        self.server.step()
        if self.shape.away and self.rng.random() < 0.05:
            self.desk.course.level = self.rng.choice(["cool", "hot", None])

    def tools_end(self) -> None:
        """The node's tools are done with one round."""
        if self.work:
            self.inbox.append(self.work.pop(self.rng.randrange(len(self.work))))

    def connect(self) -> None:
        """A new connection, as after one that took messages with it."""
        self.inbox.append(Connected(session_present=True))

    def wait(self) -> None:
        """Time passes."""
        self.clock.advance(self.rng.choice([0.01, 0.1, 0.5, 2.0]))
        self.desk.expire(self.clock())
        self.intake.tick(self.clock())

    def disk_fills(self) -> None:
        """The disk takes nothing, or all again."""
        if not self.settling:
            self.full = self.rng.random() < self.shape.full

    def write(self) -> None:
        """The journal's writer takes a turn."""
        if not self.committing and (self.settling or self.rng.random() < self.shape.writes):
            self.journal.turn(retry=self.rng.random() < 0.7)

    def meanwhile(self) -> None:
        """What happens while the disk commits.

        Raises:
            sqlite3.OperationalError: the disk is full.
        """
        self.committing = True
        for _ in range(self.rng.randrange(8)):
            self.act()
        self.committing = False
        if self.full:
            raise disk_full()

    def heard(self, event: records.JournalEvent) -> None:
        """The journal tells something that is durable."""
        if isinstance(event, records.Accepted):
            self.asked[event.ticket.key].stored = True  # type: ignore[attr-defined]  # a job
        elif isinstance(event, records.Finished) and event.outbox:
            self.finished[event.number] = self.finished.get(event.number, 0) + 1
        self.inbox.append(event)

    # the broker -----------------------------------------------------------------------------------------

    def published(self, message: Outgoing) -> None:
        """The broker gets a message."""
        key = key_of(message.topic)
        body = json.loads(message.payload)
        if message.token is not None:
            self.under_way.append(message)
        if body["type"] == "status" or key[1] == FORGETTER:
            return
        asked = self.asked[key]
        if body["type"] in ENDS:
            self.told_at(message.topic)
        if isinstance(message.token, Answered):
            asked.refusals += 1
            known = any(map(is_final, asked.ends)) and not (self.shape.full or self.shape.forgets)
            assert not known, f"{key} was answered, and is refused: {body}"
            return
        assert asked.stored, f"{body['type']} of {key} is told before it is stored"
        asked.told.append((self.life, body))
        if isinstance(message.token, Owed):
            asked.ends.append(body)
            if body.get("message") == TOO_LATE:
                assert asked.deadline < self.clock() + self.shape.needs_s, f"{key} had time enough"

    def broker_answers(self) -> None:
        """The broker acknowledges a message, or the connection has taken it along."""
        if not self.under_way:
            return
        message = self.under_way.pop(self.rng.randrange(len(self.under_way)))
        token = message.token
        # A question that comes again because its refusal was lost would say anew where its device listened once.
        if self.settling or self.rng.random() >= 0.1 or (self.shape.moves and isinstance(token, Answered)):
            self.told_at(message.topic)
            self.inbox.append(Delivered(token))
            return
        self.inbox.append(Undelivered(token))
        if isinstance(token, Answered) and token.delivery in self.unacknowledged:
            self.inbox.append(self.unacknowledged[token.delivery])

    def told_at(self, topic: str) -> None:
        """A question's end goes there."""
        asked = self.asked[key_of(topic)]
        if asked.listens == topic:
            asked.listens = None

    def deliver(self, topic: str, payload: dict[str, Any], properties: Properties | None = None) -> None:
        """The broker hands a device's message over, and keeps it until it is acknowledged."""
        self.deliveries += 1
        delivery = Delivery(self.deliveries, qos=1, connection=1)
        event = Arrived(topic, json.dumps(payload).encode(), properties or Properties(), False, delivery)
        self.unacknowledged[delivery] = event
        self.inbox.append(event)

    # devices --------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """A device asks a question, or asks one again."""
        rng = self.rng
        if self.settling or rng.random() >= self.shape.asks:
            return
        if self.asked and rng.random() < self.shape.again:
            key = rng.choice(list(self.asked))
        else:
            fields = self.new_question()
            inside = rng.random() < self.shape.inside
            if inside:
                fields["id"] = rng.choice([PASSING, PASSING, NAMED]) + fields["id"]
            key = (f"{HTTP}-" if inside else rng.choice(self.shape.clients)), fields["id"]
            left_s = fields.get("deadline_ms", 1000 * DEADLINE_S) / 1000
            self.asked[key] = Asked(fields, self.clock() + left_s)
        if key[0].startswith(HTTP):
            self.ask_inside(key)
            return
        asked = self.asked[key]
        branch = "elsewhere" if self.shape.moves and rng.random() < 0.5 else "answer"
        asked.listens = TOPICS.answer(*key).replace("/answer/", f"/{branch}/")
        self.deliver(TOPICS.ask(key[0]), asked.fields, Properties(response_topic=asked.listens))

    def ask_inside(self, key: Key) -> None:
        """The same over HTTP: not while somebody waits for it, and once only where its client has not named it."""
        asked = self.asked[key]
        if key in self.open or (is_passing(*key) and asked.listens is not None):
            return
        asked.listens = TOPICS.answer(*key)
        self.open[key] = Box(self, key)
        self.exchange.open(asked.listens, self.open[key])
        payload = json.dumps(asked.fields).encode()
        self.inbox.append(Arrived(TOPICS.ask(key[0]), payload, Properties(), False, INSIDE))

    def new_question(self) -> dict[str, Any]:
        """A question that nobody has asked."""
        rng = self.rng
        fields: dict[str, Any] = {"id": f"q{len(self.asked)}", "prompt": rng.choice("xyz")}
        if rng.random() < self.shape.session:
            fields |= {"session": rng.choice(self.shape.sessions), "prompt": fields["id"]}
        else:
            schema = {"type": "json_schema", "json_schema": {"schema": {"type": "string"}}}
            fields |= rng.choice(
                [
                    {},
                    {"temperature": 0},
                    {"temperature": 0},
                    {"temperature": 0, "response_format": schema},
                ]
            )
        if "temperature" not in fields and rng.random() < self.shape.tools:
            fields["tools"] = ["t"]
        if rng.random() < 0.4:
            fields["deadline_ms"] = rng.choice([2000, 5000, 15_000])
        if rng.random() < 0.2:
            fields["stream"] = False
        if rng.random() < 0.1:
            fields["cache"] = "bypass"
        if self.shape.away and "tools" not in fields and rng.random() < 0.3:
            fields["model"] = "large"
        return fields

    def steer(self) -> None:
        """A device sends an order on one of the latest questions, or on a session."""
        rng = self.rng
        if self.settling or not self.asked or rng.random() >= self.shape.cancels:
            return
        client, name = key = rng.choice(list(self.asked)[-6:])
        op = rng.choice(["cancel", "cancel", "resume", "status", "end_reasoning"])
        order = {"op": op, "id": name}
        if self.shape.forgets and rng.random() < 0.3:
            order = {"op": "forget", "id": FORGETTER, "session": rng.choice(self.shape.sessions)}
        elif op == "cancel":
            self.asked[key].cancelled = True
        self.deliver(TOPICS.control(client), order)

    def mailed(self, key: Key, body: dict[str, Any]) -> None:
        """Somebody who waits over HTTP gets a reply."""
        asked = self.asked[key]
        if body["type"] in ENDS and key in self.open:
            self.exchange.close(TOPICS.answer(*key), self.open.pop(key))
        if body["type"] == "status":
            return
        if not asked.stored:
            over = body["type"] == "error" or (body["type"] == "cancelled" and asked.cancelled)
            assert over, f"{body['type']} of {key} is told before it is stored"
            asked.refusals += 1
            return
        asked.told.append((self.life, body))
        if body["type"] in ENDS:
            asked.ends.append(body)

    def hang_up(self) -> None:
        """A connection over HTTP is closed; a question without a name is taken back with it."""
        if not self.open:
            return
        key = self.rng.choice(list(self.open))
        self.exchange.close(TOPICS.answer(*key), self.open.pop(key))
        if is_passing(*key):
            self.asked[key].cancelled = True
            payload = json.dumps({"op": "cancel", "id": key[1]}).encode()
            self.inbox.append(Arrived(TOPICS.control(key[0]), payload, Properties(), False, INSIDE))
