"""The conversation list in the terminal chat, and what one sets in it: pinned, muted, draft, cleared."""

from collections.abc import Awaitable, Callable

from clients.python.natterjack.client import Client
from clients.python.natterjack.errors import ApiError
from schemas.conversations import ConversationSummary

HELP = "/list shows conversations · /pin, /mute [off], /draft [TEXT] and /clear are for this one"
SHOWN = 20

Say = Callable[[str], None]
Name = Callable[[int], Awaitable[str]]


class ConversationList:
    """`say` prints a line, `name` tells a user's name."""

    def __init__(self, im: Client, say: Say, name: Name) -> None:
        self._im = im
        self._say = say
        self._name = name

    async def show(self) -> int:
        """Prints the first conversations; returns how many."""
        shown = 0
        async for conversation in self._im.conversations():
            if shown == SHOWN:
                self._say("  …")
                break
            self._say(await self._line(conversation))
            shown += 1
        return shown

    async def draft(self, conversation_id: str) -> str | None:
        """The draft of a conversation, if there is one."""
        async for conversation in self._im.conversations():
            if conversation.conversation_id == conversation_id:
                return conversation.draft
        return None

    async def change(self, conversation_id: str, word: str, rest: str) -> bool:
        """Carries out `/pin`, `/mute`, `/draft` or `/clear`; False if it is none of them. Raises: ApiError."""
        on = rest != "off"
        match word:
            case "/pin":
                await self._im.set_conversation(conversation_id, pinned=on)
                self._say("— pinned —" if on else "— not pinned any more —")
            case "/mute":
                await self._im.set_conversation(conversation_id, muted=on)
                self._say("— muted —" if on else "— not muted any more —")
            case "/draft":
                await self._im.set_conversation(conversation_id, draft=rest or None)
                self._say("— draft kept —" if rest else "— no draft any more —")
            case "/clear":
                await self._im.clear(conversation_id)
                self._say("— cleared, for you alone —")
            case _:
                return False
        return True

    async def _line(self, conversation: ConversationSummary) -> str:
        marks = "".join(
            mark
            for mark, there in (
                ("📌", conversation.pinned),
                ("🔕", conversation.muted),
                ("✎", conversation.draft),
            )
            if there
        )
        counts = f"{conversation.unread} unread" if conversation.unread else ""
        if conversation.mentions:
            counts += f", {conversation.mentions} for you"
        return "  " + " · ".join(
            part
            for part in (await self._title(conversation.conversation_id), counts, marks)
            if part
        )

    async def _title(self, conversation_id: str) -> str:
        kind, _, rest = conversation_id.partition("_")
        if kind != "p":
            return conversation_id
        peer = next(user for user in map(int, rest.split("_")) if user != self._im.user_id)
        try:
            return await self._name(peer)
        except ApiError:
            return f"user {peer}"
