"""Groups in the terminal chat: to make, join and leave them, and what their messages look like."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from clients.python.natterjack.client import Client
from clients.python.natterjack.errors import ApiError
from clients.python.natterjack.ids import uuid7
from clients.python.natterjack.text import printable
from schemas.groups import Group
from schemas.messages import GetHistory, History, Message
from schemas.users import User

HELP = (
    "/groups lists yours · /group NUMBER talks in one · /create NAME [USER …] makes one · /join NUMBER [hello]"
    " · /invite USER · /kick USER · /members · /leave"
)

_ROLES = ("", " (admin)", " (owner)")


class GroupRooms:
    """`open`: the group that gets the lines, None if they go to a peer."""

    def __init__(
        self,
        im: Client,
        say: Callable[[str], None],
        name: Callable[[int], Awaitable[str]],
        find: Callable[[str], Awaitable[User]],
    ) -> None:
        self._im = im
        self._say = say
        self._name = name
        self._find = find
        self._names: dict[int, str] = {}
        self.open: Group | None = None

    async def carry_out(self, word: str, rest: str) -> bool:
        """A line that begins with `word`; False if it is none of these. Raises: ApiError, GiveUp."""
        number, _, hello = rest.partition(" ")
        match word:
            case "/groups":
                await self._list()
            case "/group" if rest.isdecimal():
                await self._enter(await self._im.groups.get(int(rest)))
            case "/create" if rest:
                name, *users = rest.split()
                members = [(await self._find(user)).user_id for user in users]
                await self._enter(await self._im.groups.create(name, members))
            case "/join" if number.isdecimal():
                await self._join(int(number), hello)
            case "/members" | "/invite" | "/kick" | "/leave" if self.open is not None:
                await self._inside(self.open, word, rest)
            case _:
                return False
        return True

    async def write(self, text: str, sent: set[str]) -> None:
        """Sends a line into the open group; `sent` learns its id. Raises: ApiError."""
        assert self.open is not None
        client_msg_id = uuid7()
        sent.add(client_msg_id)
        ack = await self._im.send(group=self.open.group_id, text=text, client_msg_id=client_msg_id)
        self._say(f"✓ {ack.seq}  {text}")

    async def shown(self, message: Message, prefix: str = "") -> str | None:
        """A message of a group as a line without its time; None if it is of no group."""
        if message.group_id is None:
            return None
        sender = await self._name(message.sender_id)
        if message.msg_type == 0:
            said = await self._told(msgspec.json.decode(message.content))
        else:
            text = "(recalled)" if message.status else printable(message.content)
            said = f": {prefix}{text}"
        return f"[{await self._group_name(message.group_id)}] {sender}{said}"

    async def _told(self, content: dict[str, Any]) -> str:
        """What a change says."""
        users = content.get("user_ids", [content["user_id"]] if "user_id" in content else [])
        whom = ", ".join([await self._name(user_id) for user_id in users[:5]])
        more = " …" if len(users) > 5 else ""
        return f" · {str(content['kind']).removeprefix('group.')} {whom}{more}".rstrip()

    async def _list(self) -> None:
        groups = [group async for group in self._im.groups.mine()]
        for group in groups:
            self._names[group.group_id] = printable(group.name)
            role = _ROLES[group.role or 0]
            self._say(f"  {group.group_id}  {printable(group.name)}, {group.member_count}{role}")
        if not groups:
            self._say("No groups yet: /create NAME makes one.")

    async def _enter(self, group: Group) -> None:
        self._names[group.group_id] = printable(group.name)
        self.open = group
        self._say(f"— talking in {printable(group.name)} (group {group.group_id}) —")
        if group.role is None:
            self._say(f"  (you are not in: /join {group.group_id})")
            return
        asked = GetHistory(f"g_{group.group_id}", limit=20)
        for message in (await self._im.request(asked, History)).messages:
            self._say(await self.shown(message) or "")

    async def _join(self, group_id: int, hello: str) -> None:
        joined = await self._im.groups.join(group_id, hello)
        if joined.status == "joined":
            await self._enter(await self._im.groups.get(group_id))
        else:
            self._say("— asked; the owner or an admin lets you in, or not —")

    async def _inside(self, group: Group, word: str, rest: str) -> None:
        calls, group_id = self._im.groups, group.group_id
        if word == "/members":
            async for member in calls.members(group_id):
                self._say(f"  {await self._name(member.user_id)}{_ROLES[member.role]}")
        elif word == "/leave":
            await calls.leave(group_id)
            self.open = None
        elif rest:
            user_id = (await self._find(rest)).user_id
            if word == "/invite":
                await calls.invite(group_id, [user_id])
            else:
                await calls.kick(group_id, user_id)

    async def _group_name(self, group_id: int) -> str:
        if group_id not in self._names:
            try:
                self._names[group_id] = printable((await self._im.groups.get(group_id)).name)
            except ApiError:  # left, or dissolved
                return f"group {group_id}"
        return self._names[group_id]
