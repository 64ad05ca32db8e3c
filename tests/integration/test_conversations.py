"""The conversation list, changes, receipts and pins, alike on SQLite and MariaDB."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history import listing, receipts
from functions.history.book import SqlBook
from functions.history.changes import CHUNK, SqlChanges
from functions.history.handler import Deps, history, sync
from functions.history.listing import clear, list_conversations, update
from functions.history.pages import Pages, Window
from functions.history.receipts import edits, pins
from functions.history.receipts import receipts as list_receipts
from functions.history.shelf import SqlShelf
from functions.history.span import Bounds
from functions.history.store import SqlArchive
from functions.history.view import Mine
from migrations.schema import upgrade
from schemas.conversations import (
    ClearConversation,
    ListConversations,
    ListEdits,
    ListPins,
    ListReceipts,
    Receipt,
    UpdateConversation,
)
from schemas.messages import GetHistory, Message, Position, Sync
from shared import patience, tables
from shared.adapters.sql import open_engine
from shared.errors import AppError, BadRequest, Forbidden, NotFound, NotMember, Unavailable
from shared.function import Context
from shared.lookup import Messages
from tests.archive import Acked, Archive

MONTH_MS = 32 * 86_400_000


class NoCache:
    """The hot cache when Redis is away."""

    async def read(self, *_: object, **__: object) -> Window:
        return Window(0, b"")

    async def repair(self, *_: object, **__: object) -> None:
        return


class Reading(Deps, frozen=True):
    """Deps of the handlers that are tested here."""

    listing: listing.Deps
    receipts: receipts.Deps


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
def archive(engine: AsyncEngine) -> Archive:
    return Archive(engine)


@pytest.fixture
def acked() -> Acked:
    return Acked()


@pytest.fixture
def ctx(engine: AsyncEngine, acked: Acked) -> Context[Any]:
    """User 1 asks."""
    store = SqlArchive(engine)
    pages = Pages(NoCache(), store)
    deps = Reading(
        pages,
        store,
        SqlChanges(engine, store),
        acked,
        listing.Deps(SqlShelf(engine), acked),
        receipts.Deps(Messages(engine), store, SqlBook(engine)),
    )
    return Context(1, deps, 0)


async def listed(ctx: Context[Any], limit: int = 50) -> list[listing.SummaryPage]:
    """The whole list, page by page."""
    found: list[listing.SummaryPage] = []
    cursor: str | None = None
    while True:
        page = (await list_conversations(ListConversations(cursor, limit), ctx)).reply
        assert page is not None
        assert len(page.conversations) <= limit
        found += page.conversations
        if (cursor := page.next) is None:
            return found


async def test_the_list_is_sorted_and_paged(archive: Archive, ctx: Context[Any]) -> None:
    for peer in (2, 3, 4, 5, 6):
        await archive.send(f"p_1_{peer}", peer, f"from {peer}")
    await archive.send("p_1_3", 1, "mine")
    await archive.send("p_2_3", 2, "not mine")
    await update(UpdateConversation("p_1_4", pinned=True), ctx)
    for limit in (1, 2, 3, 50):
        found = await listed(ctx, limit)
        assert [c.conversation_id[-1] for c in found] == ["4", "3", "6", "5", "2"]
    last = msgspec.json.decode(found[1].last_message or b"", type=Message)
    assert (last.content, last.seq) == ("mine", 2)


async def test_counts_over_months_without_own_recalled_and_system_messages(
    archive: Archive, ctx: Context[Any]
) -> None:
    for _ in range(3):
        await archive.send("p_1_2", 2)
        await archive.send("p_1_2", 1, mentions=[1, "all"])
        await archive.send("p_1_2", 2, mentions=[1, "all"])
        await archive.send("p_1_2", 2, mentions=[2])
        await archive.send("p_1_2", 2, msg_type=0)
        archive.skip(MONTH_MS)
    await archive.recall("p_1_2", 3)
    (state,) = await listed(ctx)
    assert (state.unread, state.mentions, state.max_seq, state.read_seq) == (8, 2, 15, 0)
    await archive.read("p_1_2", 1, 8)
    (state,) = await listed(ctx)
    assert (state.unread, state.mentions, state.read_seq) == (4, 1, 8)
    await archive.read("p_1_2", 1, 15)
    (state,) = await listed(ctx)
    assert (state.unread, state.mentions) == (0, 0)


async def test_what_is_acked_counts_before_it_is_stored(
    archive: Archive, ctx: Context[Any], acked: Acked
) -> None:
    await archive.send("p_1_2", 2)
    acked.messages = [
        archive.message("p_1_2", 2, "new", mentions=[1]),
        archive.message("p_1_2", 1, "mine"),
        archive.message("p_1_9", 9, "begun"),
    ]
    acked.fresh = frozenset({"p_1_2", "p_1_9"})
    begun, old = await listed(ctx)
    assert (begun.conversation_id, begun.unread, begun.max_seq) == ("p_1_9", 1, 1)
    assert (old.unread, old.mentions, old.max_seq) == (2, 1, 3)
    assert b'"mine"' in bytes(old.last_message or b"")


async def test_what_is_acked_moves_its_conversation_up_before_it_is_stored(
    archive: Archive, ctx: Context[Any], acked: Acked
) -> None:
    for peer in (2, 3, 4):
        await archive.send(f"p_1_{peer}", peer)
    await update(UpdateConversation("p_1_3", pinned=True), ctx)
    acked.messages = [archive.message("p_1_9", 9, "begun"), archive.message("p_1_2", 2, "new")]
    acked.fresh = frozenset({"p_1_9"})
    found = [c.conversation_id for c in await listed(ctx)]
    assert found == ["p_1_3", "p_1_2", "p_1_9", "p_1_4"]


async def test_one_that_gets_stored_between_two_looks_counts_what_follows_too(
    archive: Archive, ctx: Context[Any], acked: Acked, monkeypatch: pytest.MonkeyPatch
) -> None:
    acked.messages = [archive.message("p_1_9", 9, "first"), archive.message("p_1_9", 9, "second")]
    acked.fresh = frozenset({"p_1_9"})
    read = acked.read

    async def stored_meanwhile(*asked: Any) -> Any:
        if not archive.heads["p_1_9"]["stored"]:
            await archive.store(acked.messages[0])
        return await read(*asked)

    monkeypatch.setattr(acked, "read", stored_meanwhile)
    (found,) = await listed(ctx)
    assert (found.unread, found.max_seq) == (2, 2)
    assert b'"second"' in bytes(found.last_message or b"")


async def test_a_page_with_conversations_begun_a_moment_ago_keeps_its_limit(
    archive: Archive, ctx: Context[Any], acked: Acked
) -> None:
    for peer in range(2, 6):
        await archive.send(f"p_1_{peer}", peer)
    acked.messages = [archive.message("p_1_8", 8, "begun"), archive.message("p_1_9", 9, "begun")]
    acked.fresh = frozenset({"p_1_8", "p_1_9"})
    for limit, first in ((3, 3), (2, 3), (1, 3), (5, 5), (6, 6), (50, 6)):
        page = (await list_conversations(ListConversations(limit=limit), ctx)).reply
        assert page is not None
        assert len(page.conversations) == first, "one to go on from is always there"
        assert (page.next is None) == (first == 6)
        if limit < 3:
            continue
        names = [c.conversation_id for c in await listed(ctx, limit)]
        assert sorted(names) == [f"p_1_{peer}" for peer in (2, 3, 4, 5, 8, 9)]


async def test_settings_and_clearing(archive: Archive, ctx: Context[Any]) -> None:
    for _ in range(4):
        await archive.send("p_1_2", 2)
    outcome = await update(UpdateConversation("p_1_2", muted=True, draft="Hel"), ctx)
    assert outcome.reply is not None
    assert (outcome.reply.muted, outcome.reply.draft, outcome.reply.pinned) == (True, "Hel", False)
    (push,) = outcome.pushes
    assert push.subject == "im.v1.user.1"
    assert msgspec.json.decode(push.frame) == {
        "type": "conversation",
        "data": msgspec.to_builtins(outcome.reply),
    }
    for nothing in (None, ""):
        await update(UpdateConversation("p_1_2", draft="Hel"), ctx)
        await update(UpdateConversation("p_1_2", draft=nothing), ctx)
        assert (await listed(ctx))[0].draft is None
    cleared = (await clear(ClearConversation("p_1_2", 3), ctx)).reply
    assert cleared is not None
    assert (cleared.unread, cleared.cleared_seq, cleared.max_seq) == (1, 3, 4)
    assert (await listed(ctx))[0].last_message is not None
    cleared = (await clear(ClearConversation("p_1_2"), ctx)).reply
    assert cleared is not None
    assert (cleared.unread, cleared.cleared_seq) == (0, 4)
    assert (await listed(ctx))[0].last_message is None
    await clear(ClearConversation("p_1_2", 2), ctx)
    assert (await listed(ctx))[0].cleared_seq == 4, "it only moves forward"
    page = (await history(GetHistory("p_1_2"), ctx)).reply
    assert page is not None
    assert (bytes(page.messages), page.has_more, page.first_seq) == (b"[]", False, 5)


async def test_settings_of_a_conversation_begun_a_moment_ago_wait_for_its_row(
    archive: Archive, ctx: Context[Any], acked: Acked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOOK_PAUSE_S", 0)
    acked.fresh = frozenset({"p_1_9"})
    for acked.away in (True, False):
        with monkeypatch.context() as m:
            m.setattr(patience, "STORED_S", 0)
            with pytest.raises(Unavailable):
                await update(UpdateConversation("p_1_9", muted=True), ctx)
    read = acked.read

    async def stored_meanwhile(*asked: Any) -> Any:
        monkeypatch.setattr(acked, "read", read)
        await archive.send("p_1_9", 9)
        return await read(*asked)

    monkeypatch.setattr(acked, "read", stored_meanwhile)
    outcome = await update(UpdateConversation("p_1_9", muted=True), ctx)
    assert outcome.reply is not None
    assert outcome.reply.muted


async def test_conversations_of_others_and_nothing_to_set(
    archive: Archive, ctx: Context[Any]
) -> None:
    await archive.send("p_2_3", 2)
    await archive.send("p_1_2", 2)
    refusals: tuple[tuple[str, type[AppError]], ...] = (
        ("p_2_3", Forbidden),
        ("p_1_7", Forbidden),
        ("g_5", NotMember),
    )
    for conversation_id, refusal in refusals:
        with pytest.raises(refusal):
            await update(UpdateConversation(conversation_id, pinned=True), ctx)
        with pytest.raises(refusal):
            await clear(ClearConversation(conversation_id), ctx)
    with pytest.raises(BadRequest):
        await update(UpdateConversation("p_1_2"), ctx)
    for cursor in ("x", "2.5.p", "1.-5.p_1_2", "1.5."):
        with pytest.raises(BadRequest):
            await list_conversations(ListConversations(cursor), ctx)


async def test_changes_page_to_the_end(archive: Archive, ctx: Context[Any]) -> None:
    for _ in range(30):
        await archive.send("p_1_2", 2)
    archive.skip(MONTH_MS)
    for _ in range(30):
        await archive.send("p_1_2", 2)
    for seq in [*range(1, 61), *range(5, 50), 7, 7]:
        await archive.change("p_1_2", seq, content=f"changed {seq}")
    await archive.recall("p_1_2", 60)
    await archive.read("p_1_2", 2, 60)
    revs: list[int] = []
    seqs: set[int] = set()
    after = 0
    while True:
        page = (
            await history(GetHistory("p_1_2", after_seq=60, after_rev=after, limit=7), ctx)
        ).reply
        assert page is not None
        assert page.upto_rev is not None
        changes = msgspec.json.decode(page.changes, type=list[Message])
        assert len(changes) <= 7
        revs += [m.rev for m in changes]
        seqs |= {m.seq for m in changes}
        after = page.upto_rev
        if not page.has_more:
            break
    assert after == page.max_rev == 109
    assert revs == sorted(set(revs))
    assert seqs == set(range(1, 61)), "each message once"
    assert len(revs) == 60
    assert (changes[-1].seq, changes[-1].status, changes[-1].content) == (60, 1, "")
    assert [(r.user_id, r.seq) for r in page.reads] == [(1, 0), (2, 60)]


async def test_many_changes_of_one_message_do_not_hide_the_next(
    archive: Archive, ctx: Context[Any], engine: AsyncEngine
) -> None:
    for _ in range(2):
        await archive.send("p_1_2", 2)
    number = archive.ids["p_1_2", 1]
    async with engine.begin() as connection:
        rows = [
            {"conversation_id": "p_1_2", "rev": rev, "msg_id": number}
            for rev in range(1, CHUNK * 2 + 1)
        ]
        await connection.execute(insert(tables.message_change), rows)
    archive.heads["p_1_2"]["rev"] = CHUNK * 2
    await archive.change("p_1_2", 1, content="last")
    await archive.change("p_1_2", 2, content="next")
    page = (await history(GetHistory("p_1_2", after_rev=0, limit=1), ctx)).reply
    assert page is not None
    assert [m["content"] for m in msgspec.json.decode(page.changes)] == ["last"]
    assert (page.has_more, page.upto_rev) == (True, CHUNK * 2 + 1)


async def test_a_member_of_a_group_sees_his_time_in_it(archive: Archive, ctx: Context[Any]) -> None:
    for _ in range(10):
        await archive.send("g_5", 2)
    with pytest.raises(NotMember):
        await history(GetHistory("g_5"), ctx)
    await archive.member(1, "g_5", from_seq=3, until_seq=7)
    for seq in (2, 5, 9):
        await archive.change("g_5", seq, content="changed")
    page = (await history(GetHistory("g_5", after_rev=0), ctx)).reply
    assert page is not None
    assert [m["seq"] for m in msgspec.json.decode(page.messages)] == [4, 5, 6, 7]
    assert (page.has_more, page.max_seq, page.first_seq) == (False, 7, 4)
    assert [m["seq"] for m in msgspec.json.decode(page.changes)] == [5]
    assert (page.upto_rev, [r.user_id for r in page.reads]) == (3, [1])
    for bounds in ({"after_seq": 0}, {"before_seq": 100}, {"after_seq": 5, "limit": 1}):
        page = (await history(GetHistory("g_5", **bounds), ctx)).reply
        assert page is not None
        found = [m["seq"] for m in msgspec.json.decode(page.messages)]
        assert found == ([6] if "limit" in bounds else [4, 5, 6, 7])
        assert page.has_more is ("limit" in bounds)
    (state,) = await listed(ctx)
    assert (state.unread, state.max_seq) == (
        0,
        7,
    )  # he is no member: he could not say that he has read them
    synced = (await sync(Sync(), ctx)).reply
    assert synced is not None
    (group,) = synced.conversations
    assert [m["seq"] for m in msgspec.json.decode(group.messages)] == [4, 5, 6, 7]


async def test_sync_brings_what_is_new_of_each_kind(archive: Archive, ctx: Context[Any]) -> None:
    for peer in (2, 3, 4, 5):
        for _ in range(3):
            await archive.send(f"p_1_{peer}", peer)
    await archive.change("p_1_2", 1, content="changed")
    await archive.read("p_1_3", 3, 2)
    await archive.set(1, "p_1_4", read_seq=2)
    known = [Position(f"p_1_{peer}", 3, 0) for peer in (2, 3, 5)]
    synced = (await sync(Sync([*known, Position("p_1_4", 3, 0, 1)]), ctx)).reply
    assert synced is not None
    by_peer = {c.conversation_id[-1]: c for c in synced.conversations}
    assert sorted(by_peer) == ["2", "3", "4"]
    assert [m["content"] for m in msgspec.json.decode(by_peer["2"].changes)] == ["changed"]
    assert [c.upto_rev for c in by_peer.values()] == [1, 1, 0]
    assert [(r.user_id, r.seq) for r in by_peer["3"].reads] == [(1, 0), (3, 2)]
    assert [(r.user_id, r.seq) for r in by_peer["4"].reads] == [(1, 2), (4, 0)]


async def test_receipts(archive: Archive, ctx: Context[Any]) -> None:
    message = await archive.send("g_5", 1)
    await archive.send("g_5", 2)
    await archive.member(1, "g_5", read_seq=2)
    for user_id, read, delivered in ((2, 2, 2), (3, 0, 1), (4, 0, 0), (5, 1, 0)):
        await archive.member(user_id, "g_5", read_seq=read, delivered_seq=delivered)
    await archive.member(6, "g_5", read_seq=2, from_seq=1)
    await archive.member(7, "g_5", read_seq=0, delivered_seq=1, until_seq=0)
    reply = (await list_receipts(ListReceipts(message.msg_id), ctx)).reply
    assert reply is not None
    assert reply.read == [Receipt(2), Receipt(5)]
    assert reply.delivered == [Receipt(2), Receipt(3), Receipt(5)]
    assert (reply.read_count, reply.delivered_count, reply.next) == (2, 3, None)
    found: list[int] = []
    cursor: str | None = None
    while True:
        reply = (await list_receipts(ListReceipts(message.msg_id, cursor, 2), ctx)).reply
        assert reply is not None
        found += [r.user_id for r in reply.delivered]
        if (cursor := reply.next) is None:
            break
    assert found == [2, 3, 5]


async def test_messages_that_one_may_not_see_have_no_receipts(
    archive: Archive, ctx: Context[Any]
) -> None:
    others = await archive.send("p_2_3", 2)
    group = await archive.send("g_5", 2)
    for msg_id in (others.msg_id, group.msg_id, "1", "9" * 20, str(2**63 - 1)):
        with pytest.raises(NotFound):
            await list_receipts(ListReceipts(msg_id), ctx)
        with pytest.raises(NotFound):
            await edits(ListEdits(msg_id), ctx)


async def test_edits_and_pins(archive: Archive, ctx: Context[Any], engine: AsyncEngine) -> None:
    sent = [await archive.send("p_1_2", 2, f"text {n}") for n in range(5)]
    async with engine.begin() as connection:
        for rev, text in ((3, "second"), (1, "first")):
            await connection.execute(
                insert(tables.message_edit).values(
                    msg_id=int(sent[0].msg_id), rev=rev, content=text, edited_ms=rev * 100
                )
            )
        for n, message in enumerate(sent):
            await connection.execute(
                insert(tables.conversation_pin).values(
                    conversation_id="p_1_2", msg_id=int(message.msg_id), user_id=2,
                    pinned_ms=(n // 2) * 10,
                )
            )  # fmt: skip
    reply = (await edits(ListEdits(sent[0].msg_id), ctx)).reply
    assert reply is not None
    assert [(e.rev, e.content, e.edited_at) for e in reply.edits] == [
        (1, "first", 100),
        (3, "second", 300),
    ]
    for limit in (1, 2, 50):
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = (await pins(ListPins("p_1_2", cursor, limit), ctx)).reply
            assert page is not None
            found += [msgspec.json.decode(p.message)["content"] for p in page.pins]
            if (cursor := page.next) is None:
                break
        assert found == ["text 4", "text 3", "text 2", "text 1", "text 0"]
    with pytest.raises(Forbidden):
        await pins(ListPins("p_2_3"), ctx)
    with pytest.raises(BadRequest):
        await pins(ListPins("p_1_2", "x.y"), ctx)


def test_what_a_row_lets_one_see() -> None:
    mine = Mine(from_seq=2, until_seq=8, cleared_seq=4)
    assert [seq for seq in range(12) if mine.sees(seq)] == [5, 6, 7, 8]
    assert mine.narrow(Bounds(None, None, 5)) == Bounds(None, 9, 5)
    assert mine.narrow(Bounds(1, 20, 5)) == Bounds(4, 9, 5)
    assert Mine().narrow(Bounds(1, None, 5)) == Bounds(1, None, 5)
