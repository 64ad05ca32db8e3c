"""`translate`: sends the receiver of a German message its English words, as a push `translation`.

An example of a function that is not part of Natterjack: it follows the fact `message.sent` and serves no command.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.facts import MessageSent
from shared.function import Function, on_fact
from shared.resources import Resources

from .handler import Deps, translate
from .phrasebook import Phrasebook


@asynccontextmanager
async def lifespan(_resources: Resources) -> AsyncIterator[Deps]:
    """Opens what the handler needs: here a phrase book, with you perhaps a client of a translation service."""
    yield Deps(Phrasebook())


function = Function("translate", (), lifespan, (on_fact(MessageSent, translate),))
