"""`read`: how far users have read, and how far their devices have messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.read.handler import Deps, delivered, read
from shared.function import Function, on
from shared.gate import Gate
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens the gate."""
    yield Deps(Gate.of(resources))


function = Function(
    "read", (on("message.read", read), on("message.delivered", delivered)), lifespan
)
