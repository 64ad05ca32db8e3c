"""The API of JetStream, spoken over `shared.bus`: nats-py's own publish costs ten times as much."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shared import subjects
from shared.bus import NO_RESPONDERS, Bus, Inbox
from shared.errors import Unavailable, UnknownOutcome
from shared.log import NotAppendedError

log = logging.getLogger(__name__)

ACK_TIMEOUT_S = 5.0
"""Of a publish."""
API_TIMEOUT_S = 2.0

STREAM_NOT_FOUND = 10059
NO_MESSAGE_FOUND = 10037


class ApiError(msgspec.Struct):
    """Why JetStream refused."""

    description: str = ""
    err_code: int = 0


class Answer(msgspec.Struct):
    """The parts in use of any answer of JetStream: a publish confirmed, a stream's info, a message."""

    error: ApiError | None = None
    seq: int = 0
    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    message: dict[str, Any] = {}


decode = msgspec.json.Decoder(Answer).decode


class JetStreamError(Exception):
    """JetStream refused a request of its API."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.description)
        self.code = error.err_code


class ClosedError(Exception):
    """Whoever waited for JetStream does so no more."""


def publish(
    inbox: Inbox, subject: str, payload: bytes, headers: bytes = b""
) -> "asyncio.Future[None]":
    """Publishes into the stream of a subject. The future resolves when it is stored.

    It fails with NotAppendedError if it surely is not, with UnknownOutcome if nobody can know.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def confirmed(payload: bytes | None, headers: bytes) -> None:
        if done.done():
            return
        if payload is None:
            done.set_exception(
                UnknownOutcome("no answer of the log in time; repeat with the same client_msg_id")
            )
        elif headers.startswith(NO_RESPONDERS):
            done.set_exception(
                NotAppendedError("JetStream is not running, or has no stream for this topic")
            )
        elif (error := decode(payload).error) is not None:
            done.set_exception(NotAppendedError(error.description))
        else:
            done.set_result(None)

    try:
        inbox.ask(subject, payload, ACK_TIMEOUT_S, confirmed, headers)
    except Unavailable as error:
        done.set_exception(NotAppendedError(error.message))
    except ValueError as error:  # larger than the server takes
        done.set_exception(NotAppendedError(str(error)))
    return done


async def call(inbox: Inbox, name: str, ask: object = None) -> Answer:
    """One request of the JetStream API. Raises: Unavailable, UnknownOutcome, JetStreamError."""
    payload = b"" if ask is None else msgspec.json.encode(ask)
    body, _ = await inbox.request(f"$JS.API.{name}", payload, API_TIMEOUT_S)
    answer = decode(body)
    if answer.error is not None:
        raise JetStreamError(answer.error)
    return answer


async def patiently_call(
    inbox: Inbox, name: str, ask: object = None, closed: Callable[[], bool] = lambda: False
) -> Answer:
    """As `call`, but waits until JetStream is there. Raises: ClosedError, JetStreamError."""
    # Whoever is closed has closed the inbox too: asked through it nothing would ever come back, not even a time-out.
    while not closed():
        try:
            return await call(inbox, name, ask)
        except (Unavailable, UnknownOutcome) as error:
            if closed():
                break
            log.warning("JetStream is not there yet: %s", error.message)
            await asyncio.sleep(0.2)
    raise ClosedError


async def ensure_stream(bus: Bus, name: str, config: Mapping[str, Any]) -> None:
    """Creates a stream that is missing; one that is there stays as it is."""
    inbox = Inbox(bus, subjects.FUNCTION_INBOX)
    try:
        await patiently_call(inbox, f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.code != STREAM_NOT_FOUND:
            raise
        await call(inbox, f"STREAM.CREATE.{name}", {"name": name, **config})
    finally:
        inbox.close()
