"""Paths of the HTTP face, who may use them, and how a request's body is read: bounded before it is parsed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edged.core import exposition
from edged.errors import DECODE_ERRORS, Refusal

from . import ollama_replies, ollama_requests, openai_replies, openai_requests
from .answering import Answering
from .asking import Node, Wish
from .errors import HttpError, crowded, of_refusal

BODY_S = 30.0
"""A body must have come by then."""
BODY_FACTOR, BODY_SLACK_BYTES = 4, 16 * 1024
"""A body may escape what the question holds in fewer bytes; the question itself is measured by the node."""
KEY_CHARACTERS_MAX = 256
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PAGES_HERE = r"\w+://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
"""Origins of this machine's pages: without a key a browser lets these alone ask (CORS). With one any page may that
has it: no browser sends it by itself, as it does cookies."""
INSTEAD = "ask /v1/chat/completions; the base URL of OpenAI's clients ends in /v1"
"""Who finds nothing has left out /v1, or asks OpenAI's newer /v1/responses, as some clients do unless told."""
INSTEAD_OLLAMA = "ask /api/chat, with a model that /api/tags lists"
ALIAS = "edged"
"""Names the node's own model whatever it is, for settings that outlive a change of model."""

Endpoint = Callable[[Request], Awaitable[Response]]


class Routes:
    """Answers requests for one node.

    Args:
        node: whom to ask.
        key: the bearer key; None where only this machine can ask: then pages in a browser are kept out by their
            Origin, and foreign names for this address (DNS rebinding) by the Host.
    """

    def __init__(self, node: Node, key: str | None) -> None:
        self._node = node
        self._key = None if key is None else _hashed(key)
        self._loaded: list[str] = []
        self.closing = False
        """Set when the daemon ends: what comes now would get no answer."""

    def application(self) -> Starlette:
        """The ASGI application."""
        ask = [
            ("/v1/chat/completions", self._chat, openai_replies.error_body),
            ("/v1/completions", self._completions, openai_replies.error_body),
            ("/api/chat", self._ollama_chat, ollama_replies.error_body),
            ("/api/generate", self._ollama_generate, ollama_replies.error_body),
            ("/api/show", self._ollama_show, ollama_replies.error_body),
        ]
        read = [
            ("/v1/models", self._models, openai_replies.error_body),
            ("/v1/models/{name:path}", self._model, openai_replies.error_body),
            ("/api/tags", self._ollama_tags, ollama_replies.error_body),
            ("/api/ps", self._ollama_ps, ollama_replies.error_body),
            ("/metrics", self._metrics, openai_replies.error_body),
        ]
        open_to_all = [
            ("/health", self._health, openai_replies.error_body),
            ("/api/version", self._ollama_version, ollama_replies.error_body),
            ("/", self._root, openai_replies.error_body),
        ]
        routes = [Route(path, self._guarded(f, shape), methods=["POST"]) for path, f, shape in ask]
        routes += [Route(path, self._guarded(f, shape), methods=["GET"]) for path, f, shape in read]
        routes += [
            Route(path, self._guarded(f, shape, needs_key=False), methods=["GET"])
            for path, f, shape in open_to_all
        ]
        pages = Middleware(
            CORSMiddleware,
            allow_origins=() if self._key is None else ("*",),
            allow_origin_regex=PAGES_HERE if self._key is None else None,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=("retry-after", "retry-after-ms"),
        )
        return Starlette(routes=routes, middleware=[pages], exception_handlers={HTTPException: _unknown})

    # who may ask ----------------------------------------------------------------------------------------

    def _guarded(
        self, endpoint: Endpoint, shape: Callable[[HttpError], Mapping[str, Any]], *, needs_key: bool = True
    ) -> Endpoint:
        async def guarded(request: Request) -> Response:
            try:
                self._refuse_browsers(request)
                if needs_key and not self._allowed(request):
                    raise HttpError(401, "unauthorized", "send the node's key as Authorization: Bearer KEY")  # noqa: TRY301
                return await endpoint(request)
            except Refusal as refusal:
                error = of_refusal(refusal)
            except HttpError as refused:
                error = refused
            except ClientDisconnect:
                return Response()  # nobody reads it
            return JSONResponse(shape(error), error.status, headers=error.headers)

        return guarded

    def _allowed(self, request: Request) -> bool:
        if self._key is None:
            return True
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        # Hashes have one length and are compared in constant time: neither tells anything of the key.
        return hmac.compare_digest(_hashed(sent.strip()), self._key) and kind.lower() == "bearer"

    def _refuse_browsers(self, request: Request) -> None:
        if self._key is not None:
            return
        addresses = [f"//{request.headers.get('host', '')}"]
        if (origin := request.headers.get("origin")) is not None:
            addresses.append(origin)
        if any(_host_of(address) not in LOOPBACK for address in addresses):
            raise HttpError(
                403,
                "forbidden",
                "without http.key_file only this machine's own programs may ask, as localhost",
            )

    # reading --------------------------------------------------------------------------------------------

    async def _body(self, request: Request) -> dict[str, Any]:
        coding = request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":  # inflated it could have any size
            raise HttpError(
                415, "unsupported", f"a body in {coding[:80]!a} is not read; send it without Content-Encoding"
            )
        most = BODY_FACTOR * self._node.payload_bytes_max() + BODY_SLACK_BYTES
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for part in request.stream():
                    data += part
                    if len(data) > most:
                        raise HttpError(413, "too_large", f"the body is too large; send at most {most} bytes")
        except TimeoutError:
            raise HttpError(408, "bad_request", f"the body did not come within {BODY_S:g} s") from None
        try:
            return msgspec.json.decode(data.removeprefix(BOM_UTF8), type=dict[str, Any])
        except DECODE_ERRORS as error:
            raise HttpError(400, "bad_request", f"the body is no JSON object: {str(error)[:120]}") from None

    def _asked_model(self, body: Mapping[str, Any]) -> str:
        """The model that a request names, if there is one of that name here."""
        asked = body.get("model")
        if not isinstance(asked, str) or not asked:
            raise HttpError(400, "bad_request", "model is missing; GET /v1/models lists them", param="model")
        self._known(asked)
        return asked

    def _known(self, asked: str) -> None:
        names = self._names()
        if asked in self._node.larger:
            return
        if asked.removesuffix(":latest") not in {*names, ALIAS}:
            if not self._loaded:
                raise HttpError(
                    503, "loading", "the model is being loaded; ask again soon", retry_after_ms=2000
                )
            message = f"there is no model {asked[:80]!a} here; there is {', '.join(names)}"
            raise HttpError(404, "model_not_found", message, param="model")

    def _names(self) -> list[str]:
        """Names of the models, the board's own first; none before it was loaded once."""
        model = self._node.info().get("model")
        if model:  # while the engine starts again, questions wait for it
            self._loaded = [model["name"]]
        return [*self._loaded, *self._node.larger]

    def _wish_key(self, request: Request) -> str | None:
        key = request.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= KEY_CHARACTERS_MAX:
            raise HttpError(
                400, "bad_request", f"Idempotency-Key must have 1 to {KEY_CHARACTERS_MAX} characters"
            )
        if self.closing:
            raise HttpError(503, "draining", "this node is going down; ask again", retry_after_ms=5000)
        return key

    def _sent_on(self, model: str, wish: Wish) -> Wish:
        """The wish for a model of the larger server names it; the board's own needs no name."""
        return replace(wish, fields={**wish.fields, "model": model}) if model in self._node.larger else wish

    # OpenAI's paths -------------------------------------------------------------------------------------

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        model = self._asked_model(body)
        wish = self._sent_on(model, openai_requests.chat_wish(body, self._wish_key(request)))
        shape = openai_replies.ChatShape(_request_id(), model, openai_requests.wants_usage(body))
        return Answering(self._node, wish, shape)

    async def _completions(self, request: Request) -> Response:
        body = await self._body(request)
        model = self._asked_model(body)
        wish = self._sent_on(model, openai_requests.completion_wish(body, self._wish_key(request)))
        shape = openai_replies.CompletionShape(_request_id(), model, openai_requests.wants_usage(body))
        return Answering(self._node, wish, shape)

    async def _models(self, request: Request) -> Response:
        del request
        return JSONResponse({"object": "list", "data": [_card(name) for name in self._names()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._known(name)
        return JSONResponse(_card(name))

    # Ollama's paths -------------------------------------------------------------------------------------

    async def _ollama_chat(self, request: Request) -> Response:
        body = await self._body(request)
        shape = ollama_replies.OllamaChat(self._asked_model(body))
        wish = ollama_requests.chat_wish(body, self._wish_key(request))
        return self._answer(wish, shape)

    async def _ollama_generate(self, request: Request) -> Response:
        body = await self._body(request)
        shape = ollama_replies.OllamaGenerate(self._asked_model(body))
        wish = ollama_requests.generate_wish(body, self._wish_key(request))
        return self._answer(wish, shape)

    def _answer(self, wish: Wish | None, shape: ollama_replies.OllamaChat) -> Response:
        if wish is None:
            return JSONResponse(shape.loaded())
        return Answering(self._node, self._sent_on(shape.model, wish), shape)

    async def _ollama_show(self, request: Request) -> Response:
        body = await self._body(request)
        self._asked_model({"model": body.get("model") or body.get("name")})
        return JSONResponse(ollama_replies.show(self._node.info()))

    async def _ollama_tags(self, request: Request) -> Response:
        del request
        info = self._node.info()
        return JSONResponse({"models": [ollama_replies.model_card(name, info) for name in self._names()]})

    async def _ollama_ps(self, request: Request) -> Response:
        del request
        info = self._node.info()
        return JSONResponse({"models": [ollama_replies.running_card(name, info) for name in self._names()]})

    async def _ollama_version(self, request: Request) -> Response:
        del request
        return JSONResponse({"version": self._node.version})

    # the node's own -------------------------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        phase = self._node.info().get("engine", "starting")
        well = phase == "ready" and not self.closing
        told: dict[str, Any] = {"status": "ok" if well else "draining" if self.closing else phase}
        if self._allowed(request):
            told["health"] = self._node.health()
        return JSONResponse(told, 200 if well else 503)

    async def _metrics(self, request: Request) -> Response:
        del request
        return PlainTextResponse(self._node.metrics(), media_type=exposition.CONTENT_TYPE)

    async def _root(self, request: Request) -> Response:
        del request
        return PlainTextResponse("edged is running")


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "edged"}


def _request_id() -> str:
    return secrets.token_hex(12)


def _host_of(address: str) -> str | None:
    """The name or number in an address, without port and brackets; None where there is none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


async def _unknown(request: Request, raised: Exception) -> Response:
    """A path or method that is not here."""
    status, headers = 500, None
    if isinstance(raised, HTTPException):
        status, headers = raised.status_code, raised.headers  # of a 405: Allow (RFC 9110, 15.5.6)
    path = request.url.path
    instead = INSTEAD_OLLAMA if path.startswith("/api/") else INSTEAD
    if headers and "Allow" in headers:
        instead = f"use {headers['Allow']}"
    error = HttpError(status, "not_found", f"there is no {request.method} {path[:80]} here; {instead}")
    return JSONResponse(_error_body(path, error), status, headers=headers)


async def no_place(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application of a connection that is one too many."""
    error = crowded()
    told = JSONResponse(
        _error_body(scope["path"], error), error.status, headers={**error.headers, "connection": "close"}
    )
    await told(scope, receive, send)


def _error_body(path: str, error: HttpError) -> Mapping[str, Any]:
    if path.startswith("/api/"):
        return ollama_replies.error_body(error)
    return openai_replies.error_body(error)
