"""The terminal chat: `python -m clients.python.natterjack.chat --user alice [--peer bob]`.

Lines from standard input are sent, also when it is a pipe; at its end the program waits for the last acks.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator

import aiohttp

from clients.python.natterjack.api import Api
from clients.python.natterjack.auth import Credentials, Keeper
from clients.python.natterjack.backoff import Backoff
from clients.python.natterjack.chat_account import AccountFiles, GiveUp, default_url, log_in
from clients.python.natterjack.chat_changes import HELP as CHANGES_HELP
from clients.python.natterjack.chat_changes import Changes, reactions_of
from clients.python.natterjack.chat_friends import HELP as FRIENDS_HELP
from clients.python.natterjack.chat_friends import FriendList, not_friend_hint
from clients.python.natterjack.chat_groups import HELP as GROUPS_HELP
from clients.python.natterjack.chat_groups import GroupRooms
from clients.python.natterjack.chat_list import HELP as LIST_HELP
from clients.python.natterjack.chat_list import ConversationList
from clients.python.natterjack.client import Client
from clients.python.natterjack.errors import (
    ApiError,
    Forbidden,
    NotFound,
    SessionEnded,
    Unauthenticated,
)
from clients.python.natterjack.events import (
    Connected,
    Disconnected,
    MessageChanged,
    MessageReceived,
    PresenceChanged,
    Pushed,
    ReadMoved,
    Typing,
)
from clients.python.natterjack.ids import private_conversation, uuid7
from clients.python.natterjack.positions import FilePositions
from clients.python.natterjack.text import printable
from schemas.messages import GetHistory, History, Message
from schemas.users import GetMe, GetUser, Me, SearchUsers, User, Users

HELP = "/peer NAME talks to somebody · /history [N] the last messages · /add NAME asks to be friends · /quit leaves"
MORE_HELP = f"{HELP}\n{FRIENDS_HELP}\n{GROUPS_HELP}\n{LIST_HELP}\n{CHANGES_HELP}"


class Chat:
    """One user at one terminal. `peer`: who gets the lines; None until one is picked."""

    def __init__(self, im: Client, me: str) -> None:
        self._im = im
        self._me = me
        self._names: dict[int, str] = {im.user_id: me}
        self._sent: set[str] = set()
        self._shown: dict[str, int] = {}
        self._list = ConversationList(im, say, self._name)
        self._groups = GroupRooms(im, say, self._name, self._find)
        self._changes = Changes(im)
        self._seen: dict[str, int] = {}
        self._something_seen = asyncio.Event()
        self._friends = FriendList(im, say, self._name, self._find)
        self._outgoing: asyncio.Queue[tuple[User, str]] = asyncio.Queue()
        self.peer: User | None = None

    async def run(self, peer: str | None) -> None:
        """Talks until the input ends. Raises: SessionEnded, Unauthenticated, GiveUp."""
        if peer is not None:
            await self._pick(peer)
        else:
            await self._list_recent()
        await self._friends.start()
        listening = asyncio.create_task(self._listen())
        typing = asyncio.create_task(self._type())
        sending = asyncio.create_task(self._send())
        reading = asyncio.create_task(self._read())
        tasks = (listening, typing, sending, reading)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _type(self) -> None:
        async for line in read_lines():
            word, _, rest = line.strip().partition(" ")
            try:
                if word == "/quit":
                    break
                elif word == "/peer" and rest.strip():
                    await self._pick(rest.strip())
                elif word == "/history":
                    await self._history(int(rest) if rest.strip().isdecimal() else 20)
                elif word == "/list":
                    await self._list.show()
                elif word.startswith("/"):
                    if not (
                        await self._groups.carry_out(word, rest.strip())
                        or await self._friends.carry_out(word, rest.strip())
                        or await self._carry_out(word, rest.strip())
                    ):
                        say(MORE_HELP)
                elif word and self._groups.open is not None:
                    await self._groups.write(line, self._sent)
                elif word and self.peer is None:
                    await self._pick(line.strip())
                elif word and self.peer is not None:
                    self._outgoing.put_nowait((self.peer, line))
            except (ApiError, GiveUp) as error:
                say(f"! {error}")
        await self._outgoing.join()

    async def _carry_out(self, word: str, rest: str) -> bool:
        """A command about the conversation on the screen; False if it is none. Raises: ApiError."""
        if self.peer is None:
            return False
        conversation = self._conversation(self.peer)
        return await self._list.change(conversation, word, rest) or await self._changes.change(
            conversation, word, rest
        )

    async def _read(self) -> None:
        """Tells the server what was on the screen; what fails now, the next message makes up for."""
        while True:
            await self._something_seen.wait()
            self._something_seen.clear()
            seen, self._seen = self._seen, {}
            for conversation, seq in seen.items():
                with contextlib.suppress(ApiError):
                    await self._im.read(conversation, seq)

    async def _send(self) -> None:
        """One after the other, so that lines keep their order."""
        while True:
            peer, text = await self._outgoing.get()
            client_msg_id = uuid7()
            self._sent.add(client_msg_id)
            try:
                ack = await self._im.send(peer=peer.user_id, text=text, client_msg_id=client_msg_id)
                self._changes.sent(ack.conversation_id, ack.msg_id)
                say(f"✓ {ack.seq}  {text}")
            except ApiError as error:
                say(f"! not sent ({error}): {text}")
                if hint := not_friend_hint(error, await self._name(peer.user_id)):
                    say(hint)
            finally:
                self._outgoing.task_done()

    async def _listen(self) -> None:
        connected = True
        async for event in self._im.events():
            match event:
                case MessageReceived(message):
                    await self._hear(message)
                case MessageChanged(message):
                    await self._show(message, "now: ")
                case ReadMoved(conversation, user, seq) if self._is_open(conversation, user):
                    say(f"✓✓ {seq}  read by {await self._name(user)}")
                case Pushed() | PresenceChanged() | Typing():
                    await self._hear_of_friends(event)
                case Disconnected(reason) if connected:
                    connected = False
                    say(f"reconnecting… ({reason})")
                case Connected() if not connected:
                    connected = True
                    say("connected")
                case _:
                    pass

    async def _hear_of_friends(self, event: Pushed | PresenceChanged | Typing) -> None:
        try:
            await self._friends.hear(event, self.peer.user_id if self.peer else None)
        except ApiError as error:
            say(f"! {error}")

    async def _hear(self, message: Message) -> None:
        if message.client_msg_id in self._sent:
            self._sent.discard(message.client_msg_id)
        elif message.seq > self._shown.get(message.conversation_id, 0):
            await self._show(message)

    async def _show(self, message: Message, prefix: str = "") -> None:
        clock = time.strftime("%H:%M", time.localtime(message.timestamp / 1000))
        reactions = printable(reactions_of(message))
        line = await self._groups.shown(message, prefix)
        if line is None:
            text = "(recalled)" if message.status else printable(message.content)
            line = f"{await self._name(message.sender_id)}: {prefix}{text}"
        say(f"{clock} {line}{reactions}")
        self._changes.saw(message)
        peer = self.peer
        if peer is not None and message.conversation_id == self._conversation(peer):
            seen = self._seen.get(message.conversation_id, 0)
            self._seen[message.conversation_id] = max(seen, message.seq)
            self._something_seen.set()

    def _conversation(self, peer: User) -> str:
        return private_conversation(self._im.user_id, peer.user_id)

    def _is_open(self, conversation: str, reader: int) -> bool:
        """Whether it is the conversation on the screen, and its peer who has read."""
        return (
            self.peer is not None
            and reader == self.peer.user_id
            and conversation == self._conversation(self.peer)
        )

    async def _name(self, user_id: int) -> str:
        if user_id not in self._names:
            try:
                user = await self._im.api.call(GetUser(user_id), User)
            except ApiError:
                return f"user {user_id}"
            self._names[user_id] = printable(user.username)
        return self._names[user_id]

    async def _find(self, name: str) -> User:
        """By his name. Raises: GiveUp, ApiError."""
        found = await self._im.api.call(SearchUsers(name), Users)
        same = [user for user in found.users if user.username.lower() == name.lower()]
        if not same:
            others = ", ".join(printable(user.username) for user in found.users[:5])
            raise GiveUp(
                f"there is no user {name}" + (f"; do you mean {others}?" if others else "")
            )
        self._names[same[0].user_id] = printable(same[0].username)
        return same[0]

    async def _pick(self, name: str) -> None:
        self.peer = await self._find(name)
        self._groups.open = None
        shown = self._names[self.peer.user_id]
        say(f"— talking to {shown} —")
        if not self.peer.friend and self.peer.user_id != self._im.user_id:
            say(f"  (no friend yet: /add {shown} asks him)")
        await self._history(20)
        if (draft := await self._list.draft(self._conversation(self.peer))) is not None:
            say(f"✎ {printable(draft)}")

    async def _history(self, n: int) -> None:
        if self.peer is None:
            raise GiveUp("pick somebody first: /peer NAME")
        conversation = self._conversation(self.peer)
        try:
            asked = GetHistory(conversation, limit=max(1, min(n, 200)))
            page = await self._im.request(asked, History)
        except (Forbidden, NotFound):
            return  # nothing said yet
        for message in page.messages:
            await self._show(message)
            self._shown[conversation] = max(self._shown.get(conversation, 0), message.seq)

    async def _list_recent(self) -> None:
        if await self._list.show():
            say("Those are your conversations.")
        say("Type the name of somebody to talk to.")


def say(line: str) -> None:
    """One line on the terminal."""
    print(line, flush=True)


async def read_lines() -> AsyncIterator[str]:
    """Lines of standard input, be it a terminal, a pipe or a file; a thread reads, the loop stays free."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        # The descriptor itself: the interpreter cannot end while a thread waits inside the buffered `sys.stdin`.
        rest = b""
        while block := os.read(0, 65536):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
        if rest:
            loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace"))
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True, name="standard input").start()
    while (line := await lines.get()) is not None:
        yield line


async def credentials_for(
    url: str, user: str, password: str | None, files: AccountFiles
) -> Credentials:
    """Kept tokens if they still work, else by password. Raises: GiveUp, ApiError."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        api = Api(url, http)
        if (kept := files.load()) is not None:
            # One try each: whoever starts the chat wants to be told at once that the server is away.
            keeper = Keeper(api, credentials=kept, keep=files.keep, backoff=Backoff(cap_s=1.0))
            try:
                await Api(url, http, keeper).call(GetMe(), Me)
            except Unauthenticated:
                say("the last session is over")
            else:
                return files.load() or kept
        fresh = await log_in(api, user, password, say)
        files.keep(fresh)
        return fresh


async def main(options: argparse.Namespace) -> None:
    """Raises: GiveUp, ApiError, SessionEnded."""
    try:
        files = AccountFiles(options.url, options.user)
    except (OSError, ValueError) as error:
        raise GiveUp(str(error)) from error
    try:
        credentials = await credentials_for(options.url, options.user, options.password, files)
        try:
            client = Client(
                options.url,
                credentials=credentials,
                keep=files.keep,
                store=FilePositions(files.positions) if files.held else None,
                newest=0,
            )
        except ValueError as error:
            raise GiveUp(str(error)) from error
        async with client as im:
            say(f"{credentials.user.username} at {options.url} · {HELP}")
            await Chat(im, credentials.user.username).run(options.peer)
    finally:
        files.close()


def run() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chat", description="Natterjack in a terminal.", epilog=HELP
    )
    parser.add_argument("--user", required=True, help="your name; registered if it is free")
    parser.add_argument("--password", help="asked for if it is not given")
    parser.add_argument("--peer", help="whom to talk to")
    parser.add_argument("--url", default=default_url(), help="the server (default: %(default)s)")
    try:
        asyncio.run(main(parser.parse_args()))
    except (GiveUp, ApiError, SessionEnded) as error:
        print(f"chat: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print()  # Ctrl-C is a way to leave as good as any
    return 0


if __name__ == "__main__":
    sys.exit(run())
