"""One question's answer: an iterable over its replies, and what can go wrong with it.

The network thread puts replies in, the asker's thread takes them out; the queue between them is all they share
but for `cancel_asked`. No paho here.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, Self, TypeVar

from edged.client.order import Order
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ReasoningDelta, Reply, Terminal
from edged.errors import EdgedError

LOOK_S = 0.5
"""How often a waiting asker looks whether the connection's thread still lives."""
NO_LINE = "there is no connection to the broker, or it has ended for good; call connect()"
CROWDED = "each connection ends soon: does another program use this account? Give each one of its own"
NO_SUBSCRIBER, FAILURE = 0x10, 0x80
"""PUBACK "No matching subscribers", and where failures begin (MQTT 5, 3.4.2.1)."""


class ClientError(EdgedError):
    """The question could not be asked, or its answer cannot come; the text says what to do."""


class UnreachableError(ClientError):
    """Broker or node is not there now; later it may be."""


class AnswerError(ClientError):
    """The node refused or failed.

    Attributes:
        code: the contract's error code.
        message: one sentence that says what to change.
        retry_after_ms: when asking again may help; None where waiting does not.
        details: figures behind the sentence.
    """

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.code}: {failed.message}")
        self.code = failed.code
        self.message = failed.message
        self.retry_after_ms = failed.retry_after_ms
        self.details: dict[str, Any] = failed.details or {}


class AnswerTimeoutError(ClientError, TimeoutError):
    """No terminal message came in time; the question has been cancelled."""


class Asker(Protocol):
    """The client, as far as one answer needs it."""

    def cancel(self, answer: Answer) -> None:
        """Take the question back."""

    def forget(self, answer: Answer) -> None:
        """Expect no more replies."""

    def give_up(self, answer: Answer) -> bool:
        """Expect no more replies, and take the question back if nobody else here waits; False if it was over."""

    def alive(self) -> bool:
        """Whether replies can still come."""

    def connected(self) -> bool:
        """Whether there is a connection just now."""

    def crowded(self) -> bool:
        """Whether connections end again and again soon after they began."""


_Value_co = TypeVar("_Value_co", covariant=True)


class Validates(Protocol[_Value_co]):
    """A pydantic model's class, as far as it is needed here: no pydantic is."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The schema that its values follow."""

    @classmethod
    def model_validate(cls, obj: Any) -> _Value_co:  # noqa: ANN401 - as pydantic has it
        """A value of the class."""


class Answer:
    """Replies to one question, as they come. Iterate it once, from one thread, with `for` or `async for`.

    Iterating yields `Accepted`, `Delta`, `ReasoningDelta` and at the end exactly one of `Done`, `Cancelled`
    and `Failed`; an error of the node is a value there and an exception in `text()`. A second `Accepted` with
    number 0 means that the node was restarted and begins the answer anew.

    Leaving the loop alone leaves the question running, for another loop, `text()` or `value()` to go on with. As a
    context manager, with `with` or `async with`, it takes the question back where it is left before the end, by
    `break`, an exception or a cancelled task.

    Attributes:
        id: the question's name.
        node: who answers; for a question to a pool None until it is accepted.
        kept: the question runs on when the client is closed.
        terminal: the last message, once it has been yielded.
        first_s: seconds from asking until the first piece of answer or thinking; None before.
    """

    def __init__(
        self,
        asker: Asker,
        job_id: str,
        node: str | None,
        publish: Callable[[], int | None],
        timeout_s: float | None,
        *,
        kept: bool = False,
    ) -> None:
        self.id = job_id
        self.node = node
        self.kept = kept
        self.terminal: Terminal | None = None
        self.first_s: float | None = None
        self.cancel_asked = False
        self.order = Order()
        self._publish = publish
        self._times_asked = 0
        self._under_way = False
        self._name: int | None = None
        self._ask_again = False
        self._asker = asker
        self._asked_s = time.monotonic()
        self._timeout_s = timeout_s
        self._arrived: queue.SimpleQueue[Reply | ClientError] = queue.SimpleQueue()
        self._wake: Callable[[], object] = lambda: None

    def ask(self) -> None:
        """Publish the question, first or again; one that is under way is sent again by itself. From any thread."""
        self._times_asked += 1
        if not self._under_way:
            self._under_way = True
            self._name = self._publish()

    @property
    def unacknowledged(self) -> int | None:
        """What the line calls the question while the broker has not acknowledged it; None else."""
        return self._name if self._under_way else None

    def acknowledged(self, reason: int, words: str) -> None:
        """The broker has the question, or says why not. From any thread."""
        self._under_way = False
        if reason >= FAILURE:
            self.put(ClientError(f"the broker refused the question: {words}; see its ACL"))
        elif reason == NO_SUBSCRIBER and self._times_asked > 1:
            # Back before the node is: a restarted broker may have forgotten its subscriptions.
            self._ask_again = True
        elif reason == NO_SUBSCRIBER:
            self.put(
                UnreachableError(
                    "nobody listens there: the broker knows no such node or pool just now; "
                    "`edged nodes` lists those that it knows"
                )
            )

    def put(self, item: Reply | ClientError) -> None:
        """Hand over a reply that is due, or the reason why none will come. Network thread."""
        if isinstance(item, ClientError):
            self._asker.forget(self)
        if isinstance(item, Accepted):
            self.node = item.node
        elif self.first_s is None and isinstance(item, Delta | ReasoningDelta):
            self.first_s = time.monotonic() - self._asked_s
        self._arrived.put(item)
        self._wake()

    def cancel(self) -> None:
        """Take the question back; `Cancelled` follows, or `Done` if it was too late. From any thread."""
        if self.terminal is None:
            self._asker.cancel(self)

    def close(self) -> None:
        """Wait no more; a question that is not over is taken back, unless it was asked twice here and one waits.

        Whoever waits in another thread gets a `ClientError`. From any thread.
        """
        if self._asker.give_up(self):
            self.put(ClientError("the answer was closed before it was complete"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()

    def within(self, timeout_s: float) -> None:
        """Wait no longer than this from now on."""
        self._timeout_s = time.monotonic() - self._asked_s + timeout_s

    def over(self, for_s: float = 0.0) -> bool:
        """Whether its time has been over for so long. From any thread."""
        left_s = self._left_s()
        return left_s is not None and left_s <= -for_s

    def __iter__(self) -> Iterator[Reply]:
        """Yield the replies that have not been yielded yet, up to the terminal message.

        Raises:
            AnswerTimeoutError: it took longer than asked for.
            ClientError: the connection is gone for good, or nobody listens.
        """
        while self.terminal is None:
            yield self._take(self._next())

    async def __aiter__(self) -> AsyncIterator[Reply]:
        """The same for asyncio; nothing blocks the loop."""
        loop, here = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(here.set)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        self._wake = wake
        while self.terminal is None:
            here.clear()
            item = self._poll()
            if item is None:
                try:
                    # Not wait_for: before Python 3.12 it loses a cancel that comes together with the reply.
                    async with asyncio.timeout(self._wait_s()):
                        await here.wait()
                except TimeoutError:
                    self._look()
                continue
            yield self._take(item)

    def text(self) -> str:
        """Wait for the end and return the whole text; of a cancelled question what there was.

        Raises:
            AnswerError: the node refused or failed.
            AnswerTimeoutError, ClientError: as in iterating.
        """
        for _reply in self:
            pass
        if isinstance(self.terminal, Failed):
            raise AnswerError(self.terminal)
        return self.terminal.text if self.terminal is not None else ""

    def value(self, model: type[Validates[_Value_co]]) -> _Value_co:
        """Wait for the end and return the answer as a value of the class whose schema was asked for.

        Raises:
            AnswerError, AnswerTimeoutError, ClientError: as in `text`.
            ValueError: pydantic's `ValidationError`: the schema says less than the class checks.
        """
        self.text()
        return model.model_validate(self.terminal.parsed if isinstance(self.terminal, Done) else None)

    def _next(self) -> Reply | ClientError:
        while True:
            try:
                return self._arrived.get(timeout=self._wait_s())
            except queue.Empty:
                self._look()

    def _poll(self) -> Reply | ClientError | None:
        try:
            return self._arrived.get_nowait()
        except queue.Empty:
            return None

    def _take(self, item: Reply | ClientError) -> Reply:
        if isinstance(item, ClientError):
            self._arrived.put(item)  # nothing else will come: whoever asks this answer again is told the same
            raise item
        if isinstance(item, Done | Cancelled | Failed):
            self.terminal = item
        return item

    def _left_s(self) -> float | None:
        return None if self._timeout_s is None else self._asked_s + self._timeout_s - time.monotonic()

    def _wait_s(self) -> float:
        left_s = self._left_s()
        return LOOK_S if left_s is None else max(0.0, min(LOOK_S, left_s))

    def _look(self) -> None:
        """Nothing came for a while: see whether anything still can."""
        left_s = self._left_s()
        if left_s is not None and left_s <= 0:
            self._asker.give_up(self)
            near = self._asker.connected()
            mend = "ask again with more time" if near else "the broker is away: ask again when it is back"
            if self._asker.crowded():
                mend = CROWDED
            raise AnswerTimeoutError(f"no answer within {self._timeout_s:.6g} s; {mend}")
        if self._ask_again:
            self._ask_again = False
            self.ask()
        if not self._asker.alive():
            raise ClientError(NO_LINE)
