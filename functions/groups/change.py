"""One change of a group: a transaction in which nobody else changes this group, and what is to follow its COMMIT.

It begins by counting `version` up, which locks the group's row; so changes of one group follow one another, each sees
what the one before it has left, and the rows of `group_outbox` stand in the order of `members_version`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.groups.rows import GROUP, Seat, info
from functions.groups.seats import add_seats, check_users, read_seat
from schemas.events import Event, GroupJoined, GroupLeft, GroupMembers
from schemas.groups import GroupInfo
from schemas.records import SystemRequested
from schemas.rights import RIGHTS, Action, Role, allowed
from schemas.types import Model
from shared import tables
from shared.adapters.sql import writing
from shared.errors import Conflict, Forbidden, NotFound, NotMember
from shared.function import Context, Push, frame, to_user
from shared.gate import group_key, member_key
from shared.ids import created_at, random_token
from shared.subjects import group as group_subject

_SEATS = tables.group_member

_encode = msgspec.json.encode


class Change:
    """A locked group. What is written with it is undone unless `say` or `note` was called.

    group: as it is now. me: the acting user's seat, None if he is no member. pushes, keys: to be published, and copies
    of rights to be forgotten, after the COMMIT. announced: the timeline will answer.
    """

    def __init__(
        self, connection: AsyncConnection, ctx: Context[Any], group: GroupInfo, me: Seat | None
    ) -> None:
        self.connection = connection
        self.ctx = ctx
        self.group = group
        self.me = me
        self.pushes: list[Push] = []
        self.keys: list[str] = []
        self.announced = False
        self.written = False

    @property
    def id(self) -> int:
        """The group's."""
        return self.group.group_id

    def need(self, action: Action, target: Seat | None = None) -> Seat:
        """The acting user's seat. Raises: NotMember, or Forbidden if his role may not do this (to that member)."""
        if self.me is None:
            raise NotMember(f"you are no member of group {self.id}", field="id")
        if not allowed(action, self.me.role, None if target is None else target.role):
            if action == "leave":
                raise Forbidden(
                    "the owner does not leave: hand the group over first, or dissolve it"
                )
            role, about = self.me.role.name.lower(), RIGHTS[action].about
            if target is None:
                raise Forbidden(f"as {role} you may not: {about}")
            raise Forbidden(
                f"as {role} you may not do this to the {target.role.name.lower()}: {about}"
            )
        return self.me

    async def seat(self, user_id: int) -> Seat | None:
        """Somebody's."""
        return await read_seat(self.connection, self.id, user_id)

    async def other(self, user_id: int, field: str = "uid") -> Seat:
        """Another member's. Raises: NotMember if the acting user is none; NotFound."""
        if self.me is None:
            raise NotMember(f"you are no member of group {self.id}", field="id")
        if user_id == self.me.user_id:
            raise Forbidden("not to oneself", field=field)
        seat = await self.seat(user_id)
        if seat is None:
            raise NotFound(f"user {user_id} is no member of group {self.id}", field=field)
        return seat

    async def set(self, **columns: object) -> None:
        """Changes the group's row."""
        row = tables.group
        await self.connection.execute(update(row).where(row.c.id == self.id).values(columns))
        found = await self.connection.execute(GROUP.where(row.c.id == self.id))
        self.group = info(found.one())

    async def set_seat(self, seat: Seat, **columns: object) -> Seat:
        """Changes a member's row, and returns his seat as it is then."""
        await self.connection.execute(
            update(_SEATS)
            .where(_SEATS.c.group_id == self.id, _SEATS.c.user_id == seat.user_id)
            .values(columns)
        )
        self.keys.append(member_key(self.id, seat.user_id))
        changed = await self.seat(seat.user_id)
        assert changed is not None
        return changed

    async def take_in(self, user_ids: Sequence[int], *, invited: bool = False) -> list[int]:
        """Makes users members, and returns those who were not. What they had applied for is done then.

        invited: they have not asked for it; nobody can take them in whom they have blocked.
        Raises: NotFound; Blocked; Conflict if there is no room, or one has too many groups.
        """
        there = select(_SEATS.c.user_id).where(
            _SEATS.c.group_id == self.id, _SEATS.c.user_id.in_(user_ids)
        )
        members = set((await self.connection.execute(there)).scalars())
        new = [u for u in dict.fromkeys(user_ids) if u not in members]
        if not new:
            return []
        if self.group.member_count + len(new) > self.group.max_members:
            raise Conflict(f"the group is full: it has room for {self.group.max_members} members")
        await check_users(self.connection, new, self.ctx.user_id, invited=invited)
        now = self.ctx.at
        await add_seats(self.connection, self.id, dict.fromkeys(new, Role.MEMBER), now)
        row = tables.group_application.c
        await self.connection.execute(
            update(tables.group_application)
            .where(row.group_id == self.id, row.user_id.in_(new), row.status == "pending")
            .values(status="accepted")
        )
        await self._count(len(new))
        by = self.ctx.user_id
        version = self.group.members_version
        self.pushes += [to_user(u, GroupJoined(self.id, version, by)) for u in new]
        self.to_all(GroupMembers(self.id, version, joined=new))
        self.keys += [member_key(self.id, u) for u in new]
        return new

    async def remove(self, seat: Seat, reason: str) -> None:
        """Ends a membership. reason: of `schemas.events.GroupLeft`."""
        user_id = seat.user_id
        await self.connection.execute(
            delete(_SEATS).where(_SEATS.c.group_id == self.id, _SEATS.c.user_id == user_id)
        )
        await self._count(-1)
        version = self.group.members_version
        left = GroupLeft(self.id, version, "left" if reason == "left" else "kicked")
        self.pushes.append(to_user(user_id, left))
        self.to_all(GroupMembers(self.id, version, left=[user_id]))
        self.keys.append(member_key(self.id, user_id))

    async def remove_all(self) -> list[int]:
        """Ends all memberships, and returns whose."""
        members = select(_SEATS.c.user_id).where(_SEATS.c.group_id == self.id)
        user_ids = list((await self.connection.execute(members)).scalars())
        await self.connection.execute(delete(_SEATS).where(_SEATS.c.group_id == self.id))
        await self._count(-len(user_ids))
        left = GroupLeft(self.id, self.group.members_version, "dissolved")
        self.pushes += [to_user(user_id, left) for user_id in user_ids]
        # One copy says that nobody may write; those of the members live on for a minute, and open nothing.
        self.keys.append(group_key(self.id))
        return user_ids

    def to_all(self, event: Event) -> None:
        """An event for all members."""
        self.pushes.append(Push(group_subject(self.id), frame(event, event.type)))

    async def say(
        self,
        kind: str,
        answer: Model,
        *,
        joined: Sequence[int] = (),
        left: Sequence[int] = (),
        **more: object,
    ) -> None:
        """Makes it a system message of the conversation, `{"kind": …}` and what else is to be told.

        `answer` is what the asker gets from the timeline once the message has its place.
        """
        record = SystemRequested(
            conversation_id=f"g_{self.id}",
            user_id=self.ctx.user_id,
            at=self.ctx.at,
            reply=self.ctx.reply,
            conn=self.ctx.conn,
            trace=self.ctx.traceparent,
            client_msg_id=f"group_{random_token()}",
            content=_encode({"kind": kind, **more}).decode(),
            joined=list(joined),
            left=list(left),
            members_version=self.group.members_version,
            sees_all=self.group.past == "visible",
            answer=msgspec.Raw(_encode(answer)),
        )
        await self.connection.execute(
            insert(tables.group_outbox).values(
                group_id=self.id, record=_encode(record).decode(), created_ms=self.ctx.at
            )
        )
        self.announced = self.written = True

    def note(self) -> None:
        """Keeps the change without a message in the conversation."""
        self.written = True

    async def _count(self, more: int) -> None:
        row = tables.group.c
        await self.set(
            member_count=row.member_count + more, members_version=row.members_version + 1
        )


class Changes:
    """Opens changes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def of(self, group_id: int, ctx: Context[Any]) -> AsyncIterator[Change]:
        """Locks a group for the time of the block, whose end is the COMMIT.

        Raises: NotFound if there is no such group (any more); Unavailable; UnknownOutcome.
        """
        row = tables.group.c
        async with writing(self._engine) as connection:
            locked = await connection.execute(
                update(tables.group)
                .where(row.id == group_id, row.dissolved_ms.is_(None))
                .values(version=row.version + 1, changed_ms=ctx.at)
            )
            if locked.rowcount != 1:
                raise NotFound(f"no group {group_id}", field="id")
            found = await connection.execute(GROUP.where(row.id == group_id))
            me = await read_seat(connection, group_id, ctx.user_id)
            change = Change(connection, ctx, info(found.one()), me)
            yield change
            if not change.written:
                await connection.rollback()
                version = change.group.version - 1
                change.group = msgspec.structs.replace(change.group, version=version)

    @asynccontextmanager
    async def new(self, ctx: Context[Any], **columns: object) -> AsyncIterator[Change]:
        """A new group with the acting user as its owner. Raises: Unauthenticated; Unavailable; UnknownOutcome."""
        async with writing(self._engine) as connection:
            created = await connection.execute(
                insert(tables.group).values(
                    owner_id=ctx.user_id,
                    created_at=created_at(ctx.at),
                    created_ms=ctx.at,
                    changed_ms=ctx.at,
                    member_count=1,
                    version=1,
                    members_version=1,
                    **columns,
                )
            )
            assert created.inserted_primary_key is not None
            group_id = int(created.inserted_primary_key[0])
            await check_users(connection, [ctx.user_id], ctx.user_id)
            await add_seats(connection, group_id, {ctx.user_id: Role.OWNER}, ctx.at)
            found = await connection.execute(GROUP.where(tables.group.c.id == group_id))
            me = await read_seat(connection, group_id, ctx.user_id)
            change = Change(connection, ctx, info(found.one()), me)
            # Somebody may have tried to write to a group that was not there yet.
            change.keys += [group_key(group_id), member_key(group_id, ctx.user_id)]
            version = change.group.members_version
            change.pushes.append(to_user(ctx.user_id, GroupJoined(group_id, version, ctx.user_id)))
            yield change
