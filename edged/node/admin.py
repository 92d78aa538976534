"""Carries out what operators order: drain, undrain, config, model, cache_clear, restart, status.

Belongs to the dispatcher thread. An order is the same whether it comes over MQTT or over the local socket; only
the first is off unless the settings allow it, for everyone who can open the socket is root or in edged's group.
Draining: no new questions of its own, out of the pools, and everything taken on is answered.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from edged.core import admin
from edged.core.admin import Order, Result
from edged.core.gguf import MAGIC
from edged.core.link import JSON, Arrived, Outgoing
from edged.core.records import Instant
from edged.engine.messages import Configure
from edged.errors import DECODE_ERRORS, Refusal, SettingsError
from edged.node.desk import Desk
from edged.node.note import Note
from edged.node.pools import Membership
from edged.node.supervision import Supervision

DRAINING = "draining"
REPEAT_S = 120.0
"""A `restart` or `model` that says what one said so long ago is the same one, delivered again; a later one is
meant, for a button says the same each time."""
KEPT_RESULTS = 64
FINISH_S = 10.0
"""Before another model is loaded, answers that run may finish for so long; the rest are computed again."""

Answer = Callable[[Result], None]

log = structlog.get_logger()


class Tunes(Protocol):
    """The settings that can change while the daemon runs."""

    def show(self) -> dict[str, Any]:
        """Their values by key."""

    def change(self, changes: dict[str, admin.Value]) -> dict[str, Any]:
        """Check and apply changes; returns what is different now.

        Raises:
            SettingsError: a key or value is wrong; nothing has changed.
        """


@dataclass(slots=True)
class Switch:
    """A change of the model that is under way."""

    order: Order
    answer: Answer
    kill_at: float
    killed: bool = False


@dataclass(slots=True)
class Admin:
    """The operator's side of a node.

    Attributes:
        enabled: whether orders over MQTT are heard.
        models: folder of the files that `model` may name; None for none.
        tunes: the settings.
        restarted: what was restarted last, on disk.
        tell: publishes an event.
        stop: begins the orderly end of the process; systemd starts it again.
        status: what `status` answers.
        tell_info: publishes who this node is, where that has changed.
        now: the present moment, in a clock that outlives the process.
    """

    desk: Desk
    membership: Membership
    supervision: Supervision
    enabled: bool
    models: Path | None
    tunes: Tunes
    restarted: Note
    tell: Callable[..., None]
    stop: Callable[[], None]
    now: Callable[[], Instant]
    status: Callable[[], dict[str, Any]] = dict
    tell_info: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    draining: bool = False
    _told_idle: bool = False
    _done: OrderedDict[tuple[str, str], tuple[float, Order, Result]] = field(default_factory=OrderedDict)
    _switch: Switch | None = None
    _own: Configure = field(init=False)

    def __post_init__(self) -> None:
        """What the settings name is loaded first."""
        self._own = self.supervision.setup

    @property
    def idle(self) -> bool:
        """Nothing is being answered or owed, and while it drains no pool deals it anything."""
        nothing = not len(self.desk.roster) and not len(self.desk.outbox)
        return nothing and (not self.draining or self.membership.out)

    def arrived(self, op: str, event: Arrived) -> None:
        """An order over MQTT: its answer goes to `.../admin/{op}/result`."""
        line, topics = self.desk.replies.line, self.desk.replies.topics

        def answer(result: Result) -> None:
            line.publish(
                Outgoing(
                    f"{topics.admin(op)}/result",
                    msgspec.json.encode(result),
                    qos=1,
                    correlation=event.properties.correlation,
                    content_type=JSON,
                )
            )

        if not self.enabled:
            log.warning("admin_refused", op=op[:32], reason="admin.enabled is false")
        else:
            self.perform(event.payload, answer, "mqtt", op)
        line.acknowledge(event.delivery)

    def perform(self, payload: bytes, answer: Answer, way: str, op: str | None = None) -> None:
        """Carry an order out; `answer` is called once, in some cases later."""
        try:
            order = admin.parse(payload, op)
        except Refusal as refusal:
            log.warning("admin_refused", op=op, way=way, reason=refusal.message)
            answer(admin.failed(_transaction_of(payload), refusal.message))
            return
        if order.op == "status":
            answer(admin.ok(order, **self.status()))
            return
        past = self._repeated(order)
        if past is not None:
            answer(past)
            return

        def told(result: Result) -> None:
            log.info("admin_done", op=order.op, way=way, status=result.status, reason=result.error)
            self.tell("admin", op=order.op, transaction=order.transaction, status=result.status)
            answer(result)

        self._carry_out(order, told)

    def _carry_out(self, order: Order, answer: Answer) -> None:
        match order.op:
            case "drain":
                self.drain()
                answer(admin.ok(order, draining=True, idle=self.idle, jobs=len(self.desk.roster)))
            case "undrain":
                self.undrain()
                answer(admin.ok(order, draining=False))
            case "config":
                try:
                    changed = self.tunes.change(order.set) if order.set else {}
                except SettingsError as error:
                    answer(admin.failed(order.transaction, str(error).splitlines()[0]))
                    return
                self.tell_info()  # it names limits and pools
                answer(admin.ok(order, changed=changed, settings=self.tunes.show()))
            case "model":
                self._begin_switch(order, answer)
            case "cache_clear":
                self.desk.forgetting.forget_prompts()
                answer(admin.ok(order, answers=self.desk.sharing.answers.clear()))
            case "restart":
                now = self.now()
                self.restarted.write(f"{now.boot_id} {now.monotonic_s} {order.transaction}")
                self._keep(order, answer, admin.ok(order, running=self.desk.running))
                self.stop()

    # draining -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing new on."""
        if not self.draining:
            self.draining, self._told_idle = True, False
            self.membership.leave(DRAINING)
            log.info("draining", jobs=len(self.desk.roster))
            self.tell("draining", jobs=len(self.desk.roster))

    def undrain(self) -> None:
        """Take questions on again."""
        if self.draining:
            self.draining = False
            self.membership.rejoin(DRAINING)
            log.info("undrained")
            self.tell("undrained")

    def tick(self) -> None:
        """Tell once when a draining node has become idle; go on with a change of the model."""
        if self.draining and not self._told_idle and self.idle:
            self._told_idle = True
            log.info("drained")
            self.tell("drained")
        switch = self._switch
        if switch is None or switch.killed:
            return
        if self.desk.running == 0 or self.clock() >= switch.kill_at:
            switch.killed = True
            self.supervision.replace()

    # another model --------------------------------------------------------------------------------------

    def _begin_switch(self, order: Order, answer: Answer) -> None:
        try:
            path = self._model_file(order.path or "")
        except Refusal as refusal:
            answer(admin.failed(order.transaction, refusal.message))
            return
        if self._switch is not None:
            answer(admin.failed(order.transaction, "another model is being loaded; wait for its answer"))
            return
        is_own = str(path) == os.path.realpath(self._own.model_path)  # the settings say more of that one
        setup = msgspec.structs.replace(
            self.supervision.setup,
            model_path=str(path),
            sha256=None if order.sha256 is None else order.sha256.lower(),
            name=self._own.name if is_own else None,
            chat_template=self._own.chat_template if is_own else None,
            step_s=0.0,  # no calibration is of this file
            read_s=0.0,
        )
        self.supervision.prepare(setup)
        self._switch = Switch(order, answer, self.clock() + FINISH_S)
        self.tick()

    def _model_file(self, name: str) -> Path:
        if self.models is None:
            raise Refusal("unsupported", "no folder of models is configured; set admin.models")
        folder = self.models.resolve()
        # Until Python 3.13 `resolve` raises a RuntimeError of links that lead round.
        path = Path(os.path.realpath(folder / name))
        if not path.is_relative_to(folder):
            raise Refusal("bad_request", "path leads out of admin.models")
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                raise Refusal("bad_request", f"{name} is no regular file; name a file in admin.models")
            with path.open("rb") as file:
                magic = file.read(len(MAGIC))
        except OSError as error:
            raise Refusal("bad_request", f"{name}: {error.strerror}; name a file in admin.models") from None
        if magic != MAGIC:
            raise Refusal("bad_request", f"{name} is no GGUF file")
        return path

    def engine_ready(self, model: str) -> None:
        """An engine is ready: the one with the new model, or after its failure the one with the old."""
        self._end_switch(None, model)

    def model_failed(self, reason: str) -> None:
        """The new model cannot be used; the old one is loaded again."""
        self._end_switch(reason, "")

    def _end_switch(self, reason: str | None, model: str) -> None:
        switch = self._switch
        if switch is None or not switch.killed:
            return
        self._switch = None
        if reason is None:
            self.desk.sharing.answers.clear()
            self.tell("model_changed", model=model, path=switch.order.path)
            result = admin.ok(switch.order, model=model)
        else:
            what = "is used" if self.supervision.ready else "cannot be used either: name another one"
            result = admin.failed(switch.order.transaction, f"{reason}; the model before it {what}")
        self._keep(switch.order, switch.answer, result)

    # the same order again -------------------------------------------------------------------------------

    def _repeated(self, order: Order) -> Result | None:
        if order.op not in {"restart", "model"}:
            return None  # done twice they are as done once
        found = self._done.get((order.op, order.transaction))
        if found is not None and found[1] == order and self.clock() - found[0] < REPEAT_S:
            return found[2]
        if order.op == "model" and self._switch is not None and self._switch.order == order:
            return admin.ok(order, under_way=True)
        if order.op == "restart":
            boot_id, _, rest = self.restarted.read().partition(" ")
            at, _, transaction = rest.partition(" ")
            now = self.now()
            same = (boot_id, transaction) == (now.boot_id, order.transaction)
            if same and now.monotonic_s - float(at) < REPEAT_S:
                return admin.ok(order, restarted=True)
        return None

    def _keep(self, order: Order, answer: Answer, result: Result) -> None:
        """Answer an order that something was done for; one that was refused may be given again."""
        self._done[order.op, order.transaction] = (self.clock(), order, result)
        while len(self._done) > KEPT_RESULTS:
            self._done.popitem(last=False)
        answer(result)


def _transaction_of(payload: bytes) -> str:
    """The transaction of an order that is wrong otherwise; empty where none can be made out."""
    try:
        value = msgspec.json.decode(payload[: admin.PAYLOAD_BYTES_MAX])
    except DECODE_ERRORS:
        return ""
    found = value.get("transaction") if isinstance(value, dict) else None
    return found[: admin.TRANSACTION_CHARS_MAX] if isinstance(found, str) else ""
