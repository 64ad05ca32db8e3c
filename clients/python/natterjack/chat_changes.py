"""Changing what was said in the terminal chat: `/recall`, `/edit`, `/react`."""

from clients.python.natterjack.client import Client
from schemas.messages import Message

HELP = (
    "/recall takes your last line back · /edit TEXT replaces it"
    " · /react EMOJI answers the last line of the other"
)
RECALLED = 1


class Changes:
    """Remembers the last lines on the screen, which the commands mean."""

    def __init__(self, im: Client) -> None:
        self._im = im
        self._mine: dict[str, str] = {}
        self._others: dict[str, str] = {}

    def saw(self, message: Message) -> None:
        """A message was shown, or sent from here."""
        if message.status == RECALLED:
            return
        mine = message.sender_id == self._im.user_id
        (self._mine if mine else self._others)[message.conversation_id] = message.msg_id

    def sent(self, conversation_id: str, msg_id: str) -> None:
        """A line was acked."""
        self._mine[conversation_id] = msg_id

    async def change(self, conversation_id: str, word: str, rest: str) -> bool:
        """Carries out one of the commands; False if it is none, or there is nothing it could mean. Raises: ApiError."""
        mine, others = self._mine.get(conversation_id), self._others.get(conversation_id)
        match word:
            case "/recall" if mine is not None:
                await self._im.recall(mine)
            case "/edit" if mine is not None and rest:
                await self._im.edit(mine, rest)
            case "/react" if others is not None and rest:
                await self._im.react(others, rest)
            case _:
                return False
        return True


def reactions_of(message: Message) -> str:
    """`  👍 2 🎉`: what others think of it."""
    shown = (f"{r.emoji} {r.count}" if r.count > 1 else r.emoji for r in message.reactions)
    return "".join(f"  {one}" for one in shown)
