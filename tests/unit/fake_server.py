"""A server that speaks the client protocol out of memory, and misbehaves on command."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from schemas.conversations import (
    Conversations,
    ConversationState,
    ConversationSummary,
    UpdateConversation,
)
from schemas.messages import (
    GetHistory,
    History,
    Message,
    MessageAck,
    ReadMessages,
    ReadPosition,
    ReadState,
    SendMessage,
    Sync,
    Synced,
    SyncedConversation,
)
from schemas.users import Me, User

LOSE = "lose"
"""Instead of an error code in `faults`: the command is carried out, and the connection breaks before the answer."""


NOBODY: dict[str, dict[str, Any]] = {
    "friend.list": {"friends": [], "removed": [], "version": 0, "next": None},
    "friend.applications": {"applications": [], "next": None},
    "presence.subscribe": {"users": [], "renew_s": 300},
}
"""Nobody has friends here."""


class Refused(Exception):
    """An error answer."""

    def __init__(self, code: str, status: int, **fields: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"code": code, "message": f"this is {code}", "trace_id": "0" * 32, **fields}


@dataclass
class Account:
    me: Me
    password: str


@dataclass
class FakeServer:
    """`faults`: what happens to the next commands of a type: an error code, LOSE, or None for nothing.

    lose_push, double_push: decide by message; late: pushes are kept back until `flush_late`.
    """

    url: str = ""
    heartbeat_s: int = 30
    token_life_s: int = 900
    accounts: dict[str, Account] = field(default_factory=dict)
    access: dict[str, int] = field(default_factory=dict)
    refresh: dict[str, int] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    conversations: dict[str, list[Message]] = field(default_factory=dict)
    changes: dict[str, list[Message]] = field(default_factory=dict)
    reads: dict[str, dict[int, int]] = field(default_factory=dict)
    states: dict[tuple[int, str], ConversationState] = field(default_factory=dict)
    acks: dict[tuple[str, int, str], tuple[str, MessageAck]] = field(default_factory=dict)
    sockets: dict[web.WebSocketResponse, int] = field(default_factory=dict)
    faults: dict[str, deque[str | None]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lose_push: Callable[[Message], bool] = lambda _: False
    double_push: Callable[[Message], bool] = lambda _: False
    late: list[tuple[web.WebSocketResponse, bytes]] | None = None
    refuse_connections: bool = False
    kick: int | None = None
    page: int = 200
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_route("*", "/api/v1/{path:.*}", self._http)
        return app

    def account(self, name: str, password: str = "password") -> int:
        number = next(self._numbers)
        self.accounts[name.lower()] = Account(Me(number, name, name, created_at=1), password)
        return number

    def tokens(self, user_id: int) -> dict[str, Any]:
        n = next(self._numbers)
        self.access[f"a{n}"] = user_id
        self.refresh[f"r{n}"] = user_id
        me = next(a.me for a in self.accounts.values() if a.me.user_id == user_id)
        return {
            "access_token": f"a{n}",
            "refresh_token": f"r{n}",
            "expires_in": self.token_life_s,
            "user": msgspec.to_builtins(me),
        }

    async def drop_all(self) -> None:
        """Every connection breaks, without a close frame."""
        for socket in list(self.sockets):
            self._cut(socket)
        await asyncio.sleep(0)

    async def close_all(self, code: int) -> None:
        for socket in list(self.sockets):
            await socket.close(code=code)

    async def broadcast(self, kind: str, data: dict[str, Any] | None = None) -> None:
        frame = msgspec.json.encode({"type": kind, "data": data or {}})
        for socket in list(self.sockets):
            await socket.send_str(frame.decode())

    async def heads(self) -> None:
        """What the timeline says 1-3 s after the last change."""
        for conversation, messages in self.conversations.items():
            rev = len(self.changes.get(conversation, ()))
            data = {"conversation_id": conversation, "seq": len(messages), "rev": rev}
            await self.broadcast("head", data)

    async def flush_late(self, order: Callable[[list[Any]], list[Any]] = list) -> None:
        kept, self.late = order(self.late or []), None
        for socket, frame in kept:
            if not socket.closed:
                await socket.send_str(frame.decode())

    async def post(self, sender: int, receiver: int, text: str) -> MessageAck:
        """Somebody else sends, over some other connection."""
        command = SendMessage(f"x{next(self._numbers)}", text, receiver_id=receiver)
        return await self.send(sender, command, None)

    def change(self, conversation: str, seq: int, content: str) -> None:
        """An edit, of which nobody is told."""
        changes = self.changes.setdefault(conversation, [])
        old = self.conversations[conversation][seq - 1]
        new = msgspec.structs.replace(old, content=content, rev=len(changes) + 1)
        self.conversations[conversation][seq - 1] = new
        changes.append(new)

    async def send(
        self, sender: int, command: SendMessage, origin: web.WebSocketResponse | None
    ) -> MessageAck:
        if command.receiver_id is None:
            raise Refused("bad_request", 400, field="receiver_id")
        low, high = sorted((sender, command.receiver_id))
        conversation = f"p_{low}_{high}"
        key = (conversation, sender, command.client_msg_id)
        if key in self.acks:
            content, ack = self.acks[key]
            if content != command.content:
                raise Refused("conflict", 409)
            return ack
        messages = self.conversations.setdefault(conversation, [])
        seq = len(messages) + 1
        message = Message(
            str(next(self._numbers)), conversation, sender, command.msg_type, command.content,
            1000 + seq, seq, command.client_msg_id, 0, command.receiver_id,
        )  # fmt: skip
        messages.append(message)
        ack = MessageAck(
            message.msg_id, command.client_msg_id, conversation, seq, message.timestamp
        )
        self.acks[key] = (command.content, ack)
        for socket, user in list(self.sockets.items()):
            if user in (low, high) and socket is not origin and not self.lose_push(message):
                frame = msgspec.json.encode({"type": "message", "data": message})
                for _ in range(2 if self.double_push(message) else 1):
                    if self.late is not None:
                        self.late.append((socket, frame))
                    else:
                        with suppress(ConnectionError):
                            await socket.send_str(frame.decode())
        return ack

    def history(self, command: GetHistory) -> History:
        all_of = self.conversations.get(command.conversation_id, [])
        limit = min(command.limit, self.page)
        after, before = command.after_seq or 0, command.before_seq or len(all_of) + 1
        span = all_of[after : before - 1]
        part = span[:limit] if command.after_seq is not None else span[-limit:]
        changes = self.changes.get(command.conversation_id, [])
        page = History(part, len(span) > len(part), len(all_of), [], len(changes))
        if command.after_rev is not None:
            newest = {m.seq: m for m in changes if m.rev > command.after_rev}
            fresh = sorted(newest.values(), key=lambda m: m.rev)
            page.changes = fresh[: self.page]
            page.upto_rev = page.changes[-1].rev if len(fresh) > self.page else len(changes)
            page.has_more |= len(fresh) > self.page
            reads = self.reads.get(command.conversation_id, {})
            page.reads = [ReadState(user, seq) for user, seq in reads.items()]
        return page

    def sync(self, user: int, command: Sync) -> Synced:
        positions = {p.conversation_id: p for p in command.positions}
        after = command.cursor or ""
        mine = [c for c in sorted(self.conversations) if str(user) in c.split("_") and c > after]
        news = []
        for conversation in mine[:2]:
            at = positions.get(conversation)
            seq, rev = (at.after_seq, at.after_rev) if at else (0, 0)
            asked = GetHistory(conversation, after_seq=seq, after_rev=rev, limit=command.limit)
            page = self.history(asked)
            if page.messages or page.changes:
                fields = msgspec.structs.asdict(page)
                news.append(SyncedConversation(**fields, conversation_id=conversation))
        return Synced(news, mine[1] if len(mine) > 2 else None)

    async def read(self, user: int, command: ReadMessages) -> ReadPosition:
        self.reads.setdefault(command.conversation_id, {})[user] = command.seq
        rev = len(self.changes.get(command.conversation_id, []))
        fields = {"conversation_id": command.conversation_id, "seq": command.seq, "rev": rev}
        await self.broadcast("read", fields | {"user_id": user})
        return ReadPosition(**fields)  # type: ignore[arg-type]

    def state(self, user: int, conversation: str) -> ConversationState:
        messages = self.conversations.get(conversation, [])
        read = self.reads.get(conversation, {}).get(user, 0)
        kept = self.states.get((user, conversation))
        return ConversationState(
            conversation,
            unread=sum(m.sender_id != user for m in messages[read:]),
            mentions=0,
            max_seq=len(messages),
            max_rev=0,
            read_seq=read,
            cleared_seq=0,
            pinned=kept.pinned if kept else False,
            muted=kept.muted if kept else False,
            draft=kept.draft if kept else None,
        )

    def list_conversations(self, user: int) -> Conversations:
        mine = [c for c in sorted(self.conversations) if str(user) in c.split("_")]
        return Conversations(
            [
                ConversationSummary(
                    **msgspec.structs.asdict(self.state(user, c)),
                    last_message=self.conversations[c][-1],
                )
                for c in mine
            ],
            None,
        )

    async def update(self, user: int, command: UpdateConversation) -> ConversationState:
        state = self.state(user, command.conversation_id)
        for name in ("pinned", "muted", "draft"):
            if (value := getattr(command, name)) is not msgspec.UNSET:
                setattr(state, name, value)
        self.states[user, command.conversation_id] = state
        await self.broadcast("conversation", msgspec.to_builtins(state))
        return state

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True, max_msg_size=64 * 1024)
        await socket.prepare(request)
        first = await socket.receive_json()
        user = self.access.get(first["data"]["token"])
        if self.kick is not None:
            await socket.close(code=self.kick)
            return socket
        if user is None or first["type"] != "auth":
            await socket.send_json({"type": "error", "code": "unauthenticated", "message": "no"})
            await socket.close(code=4401)
            return socket
        if self.refuse_connections:
            self._cut(socket)
            return socket
        self.sockets[socket] = user
        ready = {"user_id": user, "connection_id": "c", "heartbeat_s": self.heartbeat_s}
        await socket.send_json({"type": "ready", "data": ready})
        try:
            async for received in socket:
                if received.type is WSMsgType.TEXT:
                    await self._frame(socket, user, msgspec.json.decode(received.data))
        finally:
            del self.sockets[socket]
        return socket

    async def _frame(self, socket: web.WebSocketResponse, user: int, frame: dict[str, Any]) -> None:
        kind, data = frame["type"], frame["data"]
        self.seen.append((kind, data))
        fault = self._fault(kind)
        try:
            if fault not in (None, LOSE, "unknown_outcome"):
                raise Refused(fault, 0, retry_after_ms=1)
            body = await self._command(kind, user, data, socket)
            if fault == LOSE:
                self._cut(socket)
                return
            if fault == "unknown_outcome":
                raise Refused(fault, 504)
            answer = {"type": "ack", "id": frame["id"], "data": body}
        except Refused as error:
            answer = {"type": "error", "id": frame["id"], **error.body}
        if not socket.closed:
            await socket.send_str(msgspec.json.encode(answer).decode())

    async def _command(
        self, kind: str, user: int, data: dict[str, Any], origin: web.WebSocketResponse | None
    ) -> Any:
        if kind == "message.send":
            return await self.send(user, msgspec.convert(data, SendMessage), origin)
        if kind == "message.history":
            return self.history(msgspec.convert(data, GetHistory, strict=False))
        if kind == "message.sync":
            return self.sync(user, msgspec.convert(data, Sync))
        if kind == "message.read":
            return await self.read(user, msgspec.convert(data, ReadMessages))
        if kind == "conversation.list":
            return self.list_conversations(user)
        if kind == "conversation.update":
            return await self.update(user, msgspec.convert(data, UpdateConversation))
        if kind in NOBODY:
            return NOBODY[kind]
        raise Refused("bad_request", 400)

    async def _http(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        data = await request.json() if request.can_read_body else dict(request.query)
        self.seen.append((f"{request.method} {path}", data))
        try:
            if (fault := self._fault(path)) is not None:
                raise Refused(fault, 503)
            body = await self._route(request, path, data)
        except Refused as error:
            return web.json_response(error.body, status=error.status)
        envelope = {"code": "ok", "data": body, "trace_id": "0" * 32}
        return web.Response(body=msgspec.json.encode(envelope), content_type="application/json")

    async def _route(self, request: web.Request, path: str, data: dict[str, Any]) -> Any:
        if path == "auth/register":
            if data["username"].lower() in self.accounts:
                raise Refused("conflict", 409)
            self.account(data["username"], data["password"])
            return self.accounts[data["username"].lower()].me
        if path == "auth/login":
            account = self.accounts.get(data["username"].lower())
            if account is None or account.password != data["password"]:
                raise Refused("unauthenticated", 401)
            return self.tokens(account.me.user_id)
        if path == "auth/refresh":
            user = self.refresh.pop(data["refresh_token"], None)
            self.used.append(data["refresh_token"])
            if user is None:
                raise Refused("unauthenticated", 401)
            return self.tokens(user)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if (user := self.access.get(token)) is None:
            raise Refused("unauthenticated", 401)
        everybody = [account.me for account in self.accounts.values()]
        if path == "users/me":
            return next(me for me in everybody if me.user_id == user)
        if path == "users":
            found = [me for me in everybody if me.username.lower().startswith(data["q"].lower())]
            users = [User(me.user_id, me.username, me.nickname) for me in found]
            return {"users": users, "next": None}
        if path.startswith("users/"):
            found = [me for me in everybody if str(me.user_id) == path.removeprefix("users/")]
            if not found:
                raise Refused("not_found", 404)
            return User(found[0].user_id, found[0].username, found[0].nickname)
        kind = {"messages/sync": "message.sync", "messages": "message.history"}[path]
        return await self._command(kind, user, data, None)

    def _fault(self, kind: str) -> str | None:
        waiting = self.faults.get(kind)
        return waiting.popleft() if waiting else None

    def _cut(self, socket: web.WebSocketResponse) -> None:
        assert socket._req is not None
        if socket._req.transport is not None:
            socket._req.transport.abort()
