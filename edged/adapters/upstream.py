"""The larger server, asked over HTTP in OpenAI's shape. A thread of its own with an asyncio loop; httpx lives here.

What comes back goes into the node's inbox as events; nothing is decided here. Answers are bounded in size and in
time, and taken as they come: a packed one of 2 KB may unpack to more memory than a board has. No proxy, netrc or
redirect of the machine is followed: the key goes to the one server and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edged import small_file
from edged.core.link import ThreadDied
from edged.core.upstream import Ask, Begun, Broke, Event, Over, Said
from edged.core.upstream_stream import BadStreamError, QuestionRefusedError, Stream, refusal, seconds_told
from edged.errors import SettingsError

ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Of a whole stream, its JSON included."""
COMPLAINT_BYTES_MAX = 4096
PLAIN = "identity"
"""Of what a body may be packed with (RFC 9110, 8.4.1), nothing."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where the server is.

    Attributes:
        url: up to and with `/v1`.
        ca: certificates (PEM) that may sign the server's; None for the system's.
        jobs: questions under way at once; more wait here.
    """

    url: str
    key: str | None
    ca: Path | None
    connect_timeout_s: float
    silence_timeout_s: float
    jobs: int


class Upstream:
    """The connection.

    Args:
        emit: the node's inbox.

    Raises:
        SettingsError: `ca` is not what it should be.
    """

    def __init__(self, link: Link, emit: Callable[[Event | ThreadDied], None]) -> None:
        self._link = link
        self._emit = emit
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(link.jobs)
        self._end = asyncio.Event()
        self._stopping = threading.Event()
        try:
            if link.ca is not None:
                small_file.check(link.ca, small_file.PEM_BYTES_MAX)
            context = ssl.create_default_context(cafile=link.ca)
        except OSError as error:  # SSLError too
            reason = error if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(
                f"upstream.ca: {link.ca}: {reason}; accepted: a PEM file of certificates"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        key = {} if link.key is None else {"authorization": f"Bearer {link.key}"}
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at info it writes a line for each question
        self._client = httpx.AsyncClient(
            verify=context,
            headers={"accept-encoding": PLAIN, **key},
            timeout=httpx.Timeout(link.silence_timeout_s, connect=link.connect_timeout_s),
            limits=httpx.Limits(max_connections=link.jobs),  # 100 without it, whatever we let through
            trust_env=False,
            follow_redirects=False,
        )
        self._loop = _Loop()  # takes what is asked before the thread starts
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    # any thread -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; what was asked before is asked now."""
        self._thread.start()

    def ask(self, ask: Ask) -> None:
        """Send a question; `Begun`, `Said`, and one `Over` or `Broke` follow."""
        self._loop.call_soon_threadsafe(self._take, ask)

    def cancel(self, number: int) -> None:
        """Give a question up: nothing more is told of it."""
        self._loop.call_soon_threadsafe(self._give_up, number)

    def stop(self, timeout_s: float) -> bool:
        """End all connections and the thread; True if it ended in time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # its own thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        reason = "it returned"
        try:
            self._loop.run_until_complete(self._serve())
            # Of streams that were left half read.
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._loop.close()
            if not self._stopping.is_set():
                self._emit(ThreadDied("upstream", reason))

    async def _serve(self) -> None:
        async with self._client:
            await self._end.wait()
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, ask: Ask) -> None:
        task = self._loop.create_task(self._one(ask))
        self._tasks[ask.number] = task
        task.add_done_callback(lambda done: self._over(ask.number, done))

    def _give_up(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    def _over(self, number: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(number) is task:
            del self._tasks[number]
        if not task.cancelled() and (error := task.exception()) is not None:
            cramped = isinstance(error, _HastyError) or (
                isinstance(error, QuestionRefusedError) and error.cramped
            )
            blamed = isinstance(error, QuestionRefusedError) and not cramped
            wait_s = error.wait_s if isinstance(error, BadStreamError) else None
            self._emit(Broke(number, _words(error), ours=blamed, cramped=cramped, wait_s=wait_s))

    async def _one(self, ask: Ask) -> None:
        stream = Stream(self._link.key)
        begun, asked_at = False, math.inf
        try:
            async with asyncio.timeout(ask.timeout_s), self._places:
                asked_at = self._loop.time()
                url = f"{self._link.url.rstrip('/')}/chat/completions"
                headers = {"content-type": "application/json", "accept": "text/event-stream"}
                async with self._client.stream("POST", url, content=ask.body, headers=headers) as response:
                    await _check(response, shaped=ask.shaped, key=self._link.key)
                    begun = True
                    self._emit(Begun(ask.number))
                    await self._read(ask.number, response, stream)
        except TimeoutError:
            if not begun and self._loop.time() - asked_at < self._link.connect_timeout_s:
                raise _HastyError from None  # it waited for a place, or has little time: any server would fail it
            if not begun:
                raise
            self._emit(Over(ask.number, "deadline", stream.usage))
            return
        if stream.finish is None:
            raise BadStreamError("the answer broke off")
        self._emit(Over(ask.number, stream.finish, stream.usage))

    async def _read(self, number: int, response: httpx.Response, stream: Stream) -> None:
        size = 0
        async for data in response.aiter_raw():
            size += len(data)
            if size > ANSWER_BYTES_MAX:
                raise BadStreamError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            for kind, text in stream.feed(data):
                self._emit(Said(number, kind, text))
            if stream.ended:
                return


class _Loop(asyncio.SelectorEventLoop):
    """A loop that looks names up in threads which the end of the process does not wait for.

    Without a network that takes the better part of a minute (resolv.conf(5)), and cannot be called off.
    """

    async def getaddrinfo(self, *asked: Any, **how: Any) -> Any:  # noqa: ANN401 - socket.getaddrinfo's own
        """As the loop's own."""
        found: asyncio.Future[Any] = self.create_future()

        def settle(error: OSError | None, result: object) -> None:
            if not found.done():
                found.set_result(result) if error is None else found.set_exception(error)

        def look() -> None:
            error, result = None, None
            try:
                result = socket.getaddrinfo(*asked, **how)
            except OSError as failure:
                error = failure
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.call_soon_threadsafe(settle, error, result)

        threading.Thread(target=look, name="lookup", daemon=True).start()
        return await found


class _HastyError(TimeoutError):
    pass


async def _check(response: httpx.Response, *, shaped: bool, key: str | None) -> None:
    if response.status_code != httpx.codes.OK:
        body = b""
        async for data in response.aiter_raw():
            body += data
            if len(body) > COMPLAINT_BYTES_MAX:
                break
        wait_s = seconds_told(response.headers.get("retry-after"), time.time())
        raise refusal(response.status_code, body[:COMPLAINT_BYTES_MAX], shaped=shaped, key=key, wait_s=wait_s)
    packed = response.headers.get("content-encoding", PLAIN)
    if packed.lower() != PLAIN:
        raise BadStreamError(f"an answer packed with {packed[:60]}, although it was asked for {PLAIN}")
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise BadStreamError(f"no stream but {kind[:60] or 'something without a content type'}")


def _words(error: BaseException) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ReadTimeout():
            return "it does not answer"
        case TimeoutError():
            return "the deadline passed"
        case httpx.ConnectError():
            return f"it cannot be reached: {str(error)[:120]}"
        case BadStreamError() | QuestionRefusedError():
            return str(error)
        case _:
            return f"{type(error).__name__}: {str(error)[:120]}"
