"""Natterjack's Python client: typed, asynchronous, and honest about what it does not know."""

from clients.python.natterjack.api import Api
from clients.python.natterjack.auth import Credentials
from clients.python.natterjack.backoff import Backoff
from clients.python.natterjack.client import Client
from clients.python.natterjack.errors import (
    ApiError,
    BadRequest,
    ClientClosed,
    Conflict,
    Forbidden,
    NotFound,
    RateLimited,
    SessionEnded,
    TooLarge,
    Transient,
    Unauthenticated,
    Unavailable,
    UnknownOutcome,
)
from clients.python.natterjack.events import (
    Connected,
    ConversationUpdated,
    Disconnected,
    Event,
    MessageChanged,
    MessageReceived,
    PresenceChanged,
    Pushed,
    ReadMoved,
    Typing,
)
from clients.python.natterjack.positions import FilePositions, MemoryPositions, PositionStore

__all__ = [
    "Api",
    "ApiError",
    "Backoff",
    "BadRequest",
    "Client",
    "ClientClosed",
    "Conflict",
    "Connected",
    "ConversationUpdated",
    "Credentials",
    "Disconnected",
    "Event",
    "FilePositions",
    "Forbidden",
    "MemoryPositions",
    "MessageChanged",
    "MessageReceived",
    "NotFound",
    "PositionStore",
    "PresenceChanged",
    "Pushed",
    "RateLimited",
    "ReadMoved",
    "SessionEnded",
    "TooLarge",
    "Transient",
    "Typing",
    "Unauthenticated",
    "Unavailable",
    "UnknownOutcome",
]
