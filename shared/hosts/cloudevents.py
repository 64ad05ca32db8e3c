"""Serves functions over HTTP as CloudEvents 1.0: what Knative and the bridge call.

A command is an event of the type `im.v1.cmd.<domain>.<verb>`. Its subject is the acting user's id ("0": nobody), its
data the bare JSON of the command; extensions `imconn`, `imsession`, `imdeadline` (Unix ms) and `traceparent` are the
headers of the NATS face. The answer is the response's event, in the mode of the request: `im.v1.ack.<domain>.<verb>`
with the bare data, or `im.v1.error.<domain>.<verb>` with the ErrorBody and its status in `imstatus`; `causationid`
names the command's event. A fact is an event `im.v1.evt.<domain>.<fact>`, answered without one.

Status: 200 for every command that was looked at, refusals included, since Knative sends again what gets 404, 409, 429
or 5xx; 204 for a fact that was dealt with, 500 for one that is to come again; 400 and 415 for what is no event or not
meant for this process; 503 if it was surely not begun.

The subject is believed, as is the one of a NATS message: only the bridge and Knative may reach this port.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from shared import cloudevents, subjects
from shared.bus import ERROR_CODE, Bus, Inbox, header
from shared.cloudevents import Event, MalformedError, Mode, UnsupportedError
from shared.errors import AppError, BadRequest, Relayed, Unavailable, UnknownOutcome
from shared.function import Context, FactHandler, Function
from shared.hosts.endpoint import TRACEPARENT_LENGTH, Endpoint, read_deadline, read_token
from shared.hosts.web import refusal
from shared.ids import now_ms, random_token
from shared.invoke import invoke
from shared.log import LogWriter
from shared.telemetry import about, trace_id

log = logging.getLogger(__name__)

ACK = "im.v1.ack."
ERROR = "im.v1.error."
SOURCE = "/natterjack/functions/"
TOO_LATE = "the dead line had passed when the command came"
MAX_WAIT_S = 60.0
"""For an answer of the log's reader, whatever dead line the caller names: he holds a place meanwhile."""
NO_ANSWER = "no answer in time; repeat with the same client_msg_id"


class CloudEventsHost:
    """Runs commands and facts that are POSTed, at most `max_in_flight` at a time; more hear 503.

    `answer` is the handler of `shared.hosts.web.Web`.
    """

    def __init__(
        self, bus: Bus, *, writer: LogWriter | None = None, max_in_flight: int = 4096
    ) -> None:
        self._invoke = partial(invoke, bus=bus, writer=writer)
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(bus, subjects.HOST_INBOX)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._commands: dict[str, tuple[Endpoint, Any]] = {}
        self._facts: dict[str, tuple[FactHandler, Any]] = {}

    def serve(self, function: Function[Any], deps: object) -> None:
        """Takes the commands and facts of `function`."""
        for handler in function.handlers:
            name = subjects.COMMAND_PREFIX + handler.command.type
            self._commands[name] = Endpoint(handler, function.name), deps
        for fact in function.facts:
            self._facts[subjects.EVENT_PREFIX + fact.name] = fact, deps

    def close(self) -> None:
        """Waits for no more answers."""
        self._inbox.close()

    async def answer(self, request: web.Request) -> web.Response:
        """The response to one POST."""
        try:
            event, mode = cloudevents.read(request.headers, await request.read())
            if event.type in self._commands:
                return await self._command(event, mode)
            if event.type in self._facts:
                return await self._fact(event)
            raise MalformedError(f"events of type {event.type[:200]} are not served here")
        except UnsupportedError as error:
            return _rejection(415, error)
        except MalformedError as error:
            return _rejection(400, error)

    async def _command(self, event: Event, mode: Mode) -> web.Response:
        endpoint, deps = self._commands[event.type]
        user_id = subjects.read_user(event.subject)
        if user_id is None:
            raise MalformedError("the subject of a command is the id of the acting user")
        if not event.has_json:
            raise MalformedError(f"the data of a command is JSON, not {event.content_type[:100]}")
        ctx = _context(event, user_id, deps)
        source = SOURCE + endpoint.queue
        endpoint.requests += 1
        try:
            body = await self._run(endpoint, event.data, ctx)
        except _BusyError as error:
            return refusal(error)
        except AppError as error:
            endpoint.failed(error)
            body = error.body(trace_id(ctx.traceparent))
            status = {"imstatus": str(error.status)}
            return _reply(event, mode, ERROR, ctx, source=source, data=body, extensions=status)
        return _reply(event, mode, ACK, ctx, source=source, data=body)

    async def _run(self, endpoint: Endpoint, payload: bytes, ctx: Context[Any]) -> bytes:
        """The answer, from the handler or from the reader of the log. Raises: AppError."""
        if 0 < ctx.deadline < ctx.at:
            raise UnknownOutcome(TOO_LATE)
        if (wrong := endpoint.wrong_identity(ctx.user_id)) is not None:
            raise wrong
        with self._place():
            deadline = ctx.deadline or ctx.at + endpoint.handler.command.deadline_ms
            later: asyncio.Future[tuple[bytes | None, bytes]] = self._loop.create_future()
            address = self._inbox.expect(
                min((deadline - ctx.at) / 1000, MAX_WAIT_S), partial(_settle, later)
            )
            try:
                ctx = msgspec.structs.replace(ctx, reply=address)
                body = await endpoint.run(self._invoke, payload, ctx, "cloudevents")
                return _from_log(*await later) if body is None else body
            finally:
                self._inbox.forget(address)

    async def _fact(self, event: Event) -> web.Response:
        handler, deps = self._facts[event.type]
        ctx = _context(event, subjects.NOBODY, deps)
        try:
            with self._place():
                await self._invoke(handler, event.data, ctx)
        except _BusyError as error:
            return refusal(error)
        except AppError as error:
            log.warning(
                "fact %s is to come again: %s",
                event.id,
                error.message,
                extra=about(ctx.traceparent),
            )
            return web.Response(
                status=500,
                body=error.body(trace_id(ctx.traceparent)),
                content_type="application/json",
            )
        return web.Response(status=204)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for what runs at the same time. Raises: _BusyError if there is none."""
        if self._in_flight >= self._max_in_flight:
            raise _BusyError("too many commands at once; try again", retry_after_ms=200)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1


class _BusyError(Unavailable):
    """There is no place."""


def _context(event: Event, user_id: int, deps: object) -> Context[Any]:
    extra = event.extensions
    return Context(
        user_id,
        deps,
        now_ms(),
        read_token(extra.get("imconn", "")),
        read_token(extra.get("imsession", "")),
        "",
        extra.get("traceparent", "")[:TRACEPARENT_LENGTH],
        read_deadline(extra.get("imdeadline", "")),
    )


def _settle(
    future: "asyncio.Future[tuple[bytes | None, bytes]]", payload: bytes | None, block: bytes
) -> None:
    if not future.done():
        future.set_result((payload, block))


def _from_log(payload: bytes | None, block: bytes) -> bytes:
    """What the reader of the log answered. Raises: AppError."""
    if payload is None:
        raise UnknownOutcome(NO_ANSWER)
    if status := header(block, ERROR_CODE):
        raise Relayed(status, payload)
    return payload


def _reply(cause: Event, mode: Mode, prefix: str, ctx: Context[Any], **rest: Any) -> web.Response:
    """The response with the event that answers `cause`."""
    extensions = {"causationid": cause.id, "traceparent": ctx.traceparent}
    extensions |= rest.pop("extensions", {})
    headers, body = cloudevents.write(
        Event(
            id=random_token(),
            type=prefix + cause.type.removeprefix(subjects.COMMAND_PREFIX),
            subject=cause.subject,
            content_type=cloudevents.JSON,
            extensions=extensions,
            **rest,
        ),
        mode,
    )
    return web.Response(headers=headers, body=body)


def _rejection(status: int, error: MalformedError) -> web.Response:
    body = BadRequest(str(error)).body()
    return web.Response(status=status, body=body, content_type="application/json")
