"""An answer on its way to its client: streamed or whole, and given up as soon as the client is gone.

Nothing is sent before the node has taken the question, so that a refusal gets a status of its own. Each write waits
until the client has read enough; one that has stopped reading is cut off by its connection, and so is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.core.link import JSON
from edged.core.transcript import Transcript
from edged.errors import Refusal

from .asking import Node, Wish, ask
from .errors import HttpError, diverged, of_refusal, of_reply

SILENCE_S = 15.0
"""After so long without a word a comment is sent: less than proxies wait (nginx: proxy_read_timeout 60 s)."""


class Shape(Protocol):
    """How replies look to one kind of client."""

    @property
    def stream_type(self) -> str:
        """Content type of a stream."""

    def begin(self) -> bytes:
        """Before the first text."""

    def part(self, kind: str, text: str) -> bytes:
        """The next text, `text` or `reasoning`."""

    def calls(self, calls: list[Any]) -> bytes:
        """What the model wants to be called, in OpenAI's shape."""

    def end(self, done: Mapping[str, Any]) -> bytes:
        """After the last text."""

    def silence(self) -> bytes:
        """A sign of life."""

    def error(self, error: HttpError) -> bytes:
        """The end of a stream that cannot go on."""

    def whole(self, done: Mapping[str, Any], calls: list[Any]) -> dict[str, Any]:
        """The answer in one piece."""

    def error_body(self, error: HttpError) -> dict[str, Any]:
        """An error in place of the answer."""


class Answering(Response):
    """The response to one question."""

    def __init__(self, node: Node, wish: Wish, shape: Shape) -> None:
        super().__init__()
        self._node = node
        self._wish = wish
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client goes before."""
        del scope
        sink = _Sink(send)
        answer = asyncio.create_task(self._answer(sink))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not answer.done():
                answer.cancel()
            await asyncio.gather(gone, answer, return_exceptions=True)
        if not answer.cancelled() and (error := answer.exception()) is not None:
            raise error

    async def _answer(self, sink: _Sink) -> None:
        try:
            async with ask(self._node, self._wish, SILENCE_S) as replies:
                await (self._stream if self._wish.fields["stream"] else self._whole)(sink, replies)
        except Refusal as refusal:
            await self._broken(sink, of_refusal(refusal))

    async def _whole(self, sink: _Sink, replies: AsyncIterator[dict[str, Any] | None]) -> None:
        calls: list[Any] = []
        async for reply in replies:
            match None if reply is None else reply["type"]:
                case "tool_call":
                    calls = reply["tool_calls"] if reply else []
                case "done":
                    told = reply or {}
                    calls = calls or told.get("tool_calls") or []
                    await sink.whole(200, {}, self._shape.whole(told, calls))
                case "error" | "cancelled":
                    await self._broken(sink, of_reply(reply or {}))

    async def _stream(self, sink: _Sink, replies: AsyncIterator[dict[str, Any] | None]) -> None:
        shape, transcript = self._shape, Transcript()
        calls: list[Any] = []
        async for reply in replies:
            if reply is None:
                if sink.begun:
                    await sink.more(shape.silence())
                continue
            if reply["type"] in {"error", "cancelled"}:
                await self._broken(sink, of_reply(reply))
                return
            if reply["type"] == "tool_call":
                calls = reply["tool_calls"]
            if not sink.begun:
                await sink.begin(shape.stream_type, shape.begin())
            await sink.more(b"".join(shape.part(kind, text) for kind, text in transcript.feed(reply)))
            if transcript.diverged:
                await self._broken(sink, diverged())
                return
            if reply["type"] == "done":
                calls = calls or reply.get("tool_calls") or []
                told = shape.calls(calls) if calls else b""
                await sink.more(told + shape.end(reply))
        await sink.end()

    async def _broken(self, sink: _Sink, error: HttpError) -> None:
        if sink.begun:
            await sink.more(self._shape.error(error))
            await sink.end()
        else:
            await sink.whole(error.status, error.headers, self._shape.error_body(error))


class _Sink:
    """ASGI's side of a response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def begin(self, content_type: str, first: bytes) -> None:
        self.begun = True
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache")]
        headers.append((b"x-accel-buffering", b"no"))  # nginx would collect the stream
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.more(first)

    async def more(self, data: bytes) -> None:
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def whole(self, status: int, headers: Mapping[str, str], value: Mapping[str, Any]) -> None:
        self.begun = True
        told = [(b"content-type", JSON.encode()), *((k.encode(), v.encode()) for k, v in headers.items())]
        body = msgspec.json.encode(value)
        told.append((b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": told})
        await self._send({"type": "http.response.body", "body": body})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
