"""`recall`: what changes a message that is there: recall, edit, reactions, pins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.recall.handler import Deps, edit, pin, react, recall
from shared.function import Function, on
from shared.gate import Gate
from shared.lookup import Messages
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens the gate and the messages in SQL."""
    yield Deps(
        Messages(resources.engine()), Gate.of(resources), resources.settings.recall_window_s * 1000
    )


function = Function(
    "recall",
    (
        on("message.recall", recall),
        on("message.edit", edit),
        on("message.react", react),
        on("message.pin", pin),
    ),
    lifespan,
)
