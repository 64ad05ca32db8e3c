"""Friends in the terminal chat: applications, the list with who is on-line, blocks."""

import time
from collections.abc import Awaitable, Callable

from clients.python.natterjack.client import Client
from clients.python.natterjack.errors import ApiError
from clients.python.natterjack.events import PresenceChanged, Pushed, Typing
from clients.python.natterjack.frames import decode_reply
from clients.python.natterjack.text import printable
from schemas.events import FriendAccepted, FriendApplied, FriendDeleted, FriendRejected
from schemas.friends import (
    AcceptApplication,
    Application,
    Applications,
    ApplyFriend,
    BlockUser,
    Friend,
    Friends,
    ListApplications,
    ListFriends,
    RejectApplication,
    UnblockUser,
)
from schemas.types import Empty
from schemas.users import User

HELP = "/add NAME [HELLO] asks to be friends · /accept, /reject NAME answers · /friends · /block, /unblock NAME"
TYPING_S = 6.0

Say = Callable[[str], None]
Name = Callable[[int], Awaitable[str]]
Find = Callable[[str], Awaitable[User]]


class FriendList:
    """`say` prints a line, `name` tells a user's name, `find` looks one up (and raises GiveUp)."""

    def __init__(self, im: Client, say: Say, name: Name, find: Find) -> None:
        self._im = im
        self._say = say
        self._name = name
        self._find = find
        self._typing: dict[int, float] = {}

    async def start(self) -> None:
        """Begins to watch friends, and shows who waits for an answer."""
        friends = await self._friends()
        await self._im.presence.add(friend.user_id for friend in friends)
        for application in await self._waiting():
            await self._show(application)

    async def carry_out(self, word: str, rest: str) -> bool:
        """A line that begins with `word`; False if it is none of these. Raises: ApiError, GiveUp."""
        name, _, hello = rest.partition(" ")
        match word:
            case "/friends":
                await self._list()
            case "/add" if name:
                await self._add(await self._find(name), hello)
            case "/accept" | "/reject" if name:
                await self._answer(await self._find(name), accept=word == "/accept")
            case "/block" if name:
                user = await self._find(name)
                await self._im.request(BlockUser(user.user_id), Empty)
                self._say(f"— {name} is blocked: neither of you can write to the other —")
            case "/unblock" if name:
                user = await self._find(name)
                await self._im.request(UnblockUser(user.user_id), Empty)
                self._say(f"— {name} is not blocked any more —")
            case _:
                return False
        return True

    async def hear(self, event: Pushed | PresenceChanged | Typing, peer: int | None) -> None:
        """Shows what concerns friends; `peer` is the one on the screen."""
        match event:
            case PresenceChanged(presence):
                state = "here" if presence.online else "gone"
                self._say(f"· {await self._name(presence.user_id)} is {state}")
            case Typing(_, user_id, typing) if user_id == peer and typing:
                now = time.monotonic()
                if now - self._typing.get(user_id, -TYPING_S) >= TYPING_S:
                    self._typing[user_id] = now
                    self._say(f"· {await self._name(user_id)} is typing …")
            case Pushed("friend.applied", data):
                await self._show(decode_reply(data, FriendApplied).application)
            case Pushed("friend.accepted", data):
                friend = decode_reply(data, FriendAccepted).friend
                await self._im.presence.add([friend.user_id])
                self._say(f"— {await self._name(friend.user_id)} and you are friends —")
            case Pushed("friend.rejected", data):
                application = decode_reply(data, FriendRejected).application
                if application.from_user_id == self._im.user_id:
                    self._say(f"— {await self._name(application.to_user_id)} does not want to —")
            case Pushed("friend.deleted", data):
                gone = decode_reply(data, FriendDeleted).user_id
                self._say(f"— {await self._name(gone)} and you are friends no more —")
            case _:
                pass

    async def _add(self, user: User, hello: str) -> None:
        name = await self._name(user.user_id)
        application = await self._im.request(ApplyFriend(user.user_id, hello), Application)
        if application.status == "pending":
            self._say(f"— asked {name}; you hear of it when he has answered —")

    async def _answer(self, user: User, *, accept: bool) -> None:
        for application in await self._waiting():
            if application.from_user_id == user.user_id:
                if accept:
                    await self._im.request(AcceptApplication(application.id), Friend)
                else:
                    await self._im.request(RejectApplication(application.id), Application)
                    self._say("— rejected —")
                return
        self._say(f"! {await self._name(user.user_id)} has not asked you: /add asks him")

    async def _list(self) -> None:
        friends = await self._friends()
        found = await self._im.presence.add(friend.user_id for friend in friends)
        online = {presence.user_id for presence in found if presence.online}
        for friend in friends:
            marks = ["●" if friend.user_id in online else "○", await self._name(friend.user_id)]
            marks += ["(blocked)"] if friend.blocked else []
            self._say("  " + " ".join(marks))
        for application in await self._waiting():
            await self._show(application)
        if not friends:
            self._say("No friends yet: /add NAME asks somebody.")

    async def _show(self, application: Application) -> None:
        if application.to_user_id == self._im.user_id and application.status == "pending":
            name = await self._name(application.from_user_id)
            hello = f": {printable(application.greeting)}" if application.greeting else ""
            self._say(f"? {name} wants to be your friend{hello} · /accept {name} or /reject {name}")

    async def _friends(self) -> list[Friend]:
        friends: list[Friend] = []
        asked = ListFriends(limit=200)
        while True:
            page = await self._im.request(asked, Friends)
            friends += page.friends
            if page.next is None:
                return friends
            asked = ListFriends(cursor=page.next, limit=200)

    async def _waiting(self) -> list[Application]:
        page = await self._im.request(ListApplications("in", limit=200), Applications)
        return [one for one in page.applications if one.status == "pending"]


def not_friend_hint(error: ApiError, name: str) -> str | None:
    """What to do about a message that only a friend may send."""
    if error.code != "not_friend":
        return None
    return f"  only friends may write to {name}: /add {name} asks him; write again when he has accepted"
