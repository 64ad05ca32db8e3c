"""Pages: every way through a conversation brings every message once, whatever the cache holds."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.history.changes import Changes
from functions.history.handler import Deps, history, sync
from functions.history.pages import MAX_ANSWER, Messages, Pages, Window
from functions.history.span import Bounds, span_of
from functions.history.tail import Cached, Tail
from functions.history.view import Head, Mine, View
from schemas.messages import GetHistory, Position, ReadState, Sync
from shared import patience
from shared.errors import AppError, BadRequest, Forbidden, NotMember, Unavailable
from shared.function import Context
from shared.hot import KEPT


class FakeArchive:
    """Messages, changes (seq by rev) and rows of user 1, all in memory."""

    def __init__(self, sizes: Mapping[str, int], body: int = 1) -> None:
        self.conversations = {
            c: {s: self.message(c, s, body) for s in range(1, n + 1)} for c, n in sizes.items()
        }
        self.changed: dict[str, dict[int, int]] = {}
        self.mine: dict[str, Mine] = {}

    @staticmethod
    def message(conversation_id: str, seq: int, body: int, rev: int = 0) -> bytes:
        return msgspec.json.encode(
            {"conversation_id": conversation_id, "seq": seq, "rev": rev, "content": "x" * body}
        )

    def change(self, conversation_id: str, seq: int) -> None:
        changed = self.changed.setdefault(conversation_id, {})
        rev = len(changed) + 1
        changed[rev] = seq
        self.conversations[conversation_id][seq] = self.message(conversation_id, seq, 1, rev)

    def head(self, conversation_id: str) -> Head:
        rev = len(self.changed.get(conversation_id, ()))
        return Head(len(self.conversations.get(conversation_id, ())), rev, rev)

    async def view(self, user_id: int, conversation_id: str) -> View | None:
        if conversation_id not in self.conversations or f"_{user_id}" not in conversation_id:
            return None
        return View(self.head(conversation_id), self.mine.get(conversation_id, Mine()))

    async def read(self, conversation_id: str, first: int, last: int) -> Messages:
        stored = self.conversations.get(conversation_id, {})
        return [(seq, message) for seq, message in stored.items() if first <= seq <= last]

    async def as_left(self, _conversation_id: str, _until_seq: int, found: Messages) -> Messages:
        return found  # nothing here is edited

    async def of_user(
        self, user_id: int, after: str, upto: str | None, limit: int
    ) -> Sequence[tuple[str, View]]:
        names = sorted(
            c
            for c in self.conversations
            if f"_{user_id}" in c and c > after and (upto is None or c <= upto)
        )
        return [(c, View(self.head(c), self.mine.get(c, Mine()))) for c in names[:limit]]

    async def changes(
        self, conversation_id: str, mine: Mine, after_rev: int, limit: int
    ) -> Changes:
        changed = self.changed.get(conversation_id, {})
        newest = {seq: rev for rev, seq in changed.items() if rev > after_rev and mine.sees(seq)}
        some = sorted((rev, seq) for seq, rev in newest.items())
        cut = some[:limit]
        upto = cut[-1][0] if len(some) > limit else len(changed)
        stored = self.conversations.get(conversation_id, {})
        return Changes([stored[seq] for _, seq in cut], upto, len(changed))

    async def reads(
        self, user_id: int, conversations: Iterable[str]
    ) -> Mapping[str, list[ReadState]]:
        return {c: [ReadState(user_id, self.mine.get(c, Mine()).read_seq)] for c in conversations}


class FakeCache:
    """Holds some of what it should; `repair` fills it. `rev`: up to which it is right."""

    def __init__(self) -> None:
        self.held: dict[str, dict[int, bytes]] = {}
        self.rev = 0

    async def read(self, conversation_id: str, bounds: Bounds) -> Window:
        held = self.held.get(conversation_id, {})
        newest = max(held, default=0)
        span = span_of(bounds, newest)
        wanted = range(span.first, span.last + 1)
        messages = [held[s] for s in wanted] if all(s in held for s in wanted) else []
        return Window(newest, b",".join(messages), self.rev)

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes], rev: int) -> None:
        self.held.setdefault(conversation_id, {}).update(messages)
        self.rev = rev


class FakeTails:
    """What the cache has beyond the archive. `fresh`: conversations begun a moment ago."""

    def __init__(self, cache: FakeCache, fresh: Iterable[str]) -> None:
        self.cache = cache
        self.fresh = frozenset(fresh)

    async def read(
        self,
        user_id: int,  # noqa: ARG002 - here everybody has the same
        wanted: Mapping[str, int],
    ) -> tuple[frozenset[str], dict[str, Tail]]:
        return self.fresh, {
            c: [
                (Cached(s, 2, 1, 0, s), m)
                for s, m in sorted(self.cache.held.get(c, {}).items())
                if s > after
            ]
            for c, after in wanted.items()
        }


def context(
    archive: FakeArchive, cache: FakeCache, user_id: int = 1, fresh: Iterable[str] = ()
) -> Context[Deps]:
    deps = Deps(Pages(cache, archive), archive, archive, FakeTails(cache, fresh))
    return Context(user_id, deps, 0)


def decoded(messages: msgspec.Raw) -> list[dict[str, Any]]:
    return msgspec.json.decode(messages, type=list[dict[str, Any]])


def seqs(messages: msgspec.Raw) -> list[int]:
    return [m["seq"] for m in decoded(messages)]


@settings(max_examples=60)
@given(total=st.integers(0, 130), limit=st.integers(1, 60), seed=st.integers(0, 99))
async def test_paging_both_ways_brings_everything_once(total: int, limit: int, seed: int) -> None:
    archive, cache = FakeArchive({"p_1_2": total}), FakeCache()
    whole = archive.conversations["p_1_2"]
    cache.held["p_1_2"] = {s: m for s, m in whole.items() if random.Random(seed + s).random() < 0.5}
    ctx = context(archive, cache)
    forward: list[int] = []
    more = True
    while more:
        page = (await history(GetHistory("p_1_2", after_seq=len(forward), limit=limit), ctx)).reply
        assert page is not None
        forward += seqs(page.messages)
        more = page.has_more
        assert page.max_seq == total
    assert forward == list(range(1, total + 1))
    backward: list[int] = []
    before: int | None = None
    more = True
    while more:
        page = (await history(GetHistory("p_1_2", before_seq=before, limit=limit), ctx)).reply
        assert page is not None
        backward = seqs(page.messages) + backward
        before = backward[0] if backward else 1
        more = page.has_more
    assert backward == list(range(1, total + 1))


@pytest.mark.parametrize(
    ("bounds", "expected", "more"),
    [
        ({}, range(51, 101), True),
        ({"limit": 100}, range(1, 101), False),
        ({"before_seq": 51}, range(1, 51), False),
        ({"before_seq": 52}, range(2, 52), True),
        ({"before_seq": 1}, [], False),
        ({"before_seq": 500}, range(51, 101), True),
        ({"after_seq": 0}, range(1, 51), True),
        ({"after_seq": 50}, range(51, 101), False),
        ({"after_seq": 100}, [], False),
        ({"after_seq": 900}, [], False),
        ({"after_seq": 10, "before_seq": 20}, range(11, 20), False),
        ({"after_seq": 10, "before_seq": 90}, range(11, 61), True),
        ({"after_seq": 10, "before_seq": 11}, [], False),
    ],
)
async def test_bounds_are_exclusive(
    bounds: dict[str, int], expected: Sequence[int], *, more: bool
) -> None:
    page = (
        await history(
            GetHistory("p_1_2", **bounds), context(FakeArchive({"p_1_2": 100}), FakeCache())
        )
    ).reply
    assert page is not None
    assert (seqs(page.messages), page.has_more) == (list(expected), more)


async def test_the_cache_answers_when_it_holds_the_whole_page_and_is_repaired_otherwise() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    pages = Pages(cache, archive)
    ctx = Context(1, Deps(pages, archive, archive, FakeTails(cache, ())), 0)
    for hits, misses in ((0, 1), (1, 1)):
        await history(GetHistory("p_1_2"), ctx)
        assert (pages.hits, pages.misses) == (hits, misses)


async def test_what_the_cache_would_not_keep_is_not_put_there() -> None:
    archive, cache = FakeArchive({"p_1_2": KEPT + 100}), FakeCache()
    ctx = context(archive, cache)
    await history(GetHistory("p_1_2", before_seq=101), ctx)
    assert not cache.held["p_1_2"]
    await history(GetHistory("p_1_2", before_seq=111), ctx)
    assert sorted(cache.held["p_1_2"]) == list(range(101, 111))


async def test_a_cache_that_fell_behind_is_noticed() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    cache.held["p_1_2"] = {s: m for s, m in archive.conversations["p_1_2"].items() if s <= 60}
    page = (await history(GetHistory("p_1_2"), context(archive, cache))).reply
    assert page is not None
    assert seqs(page.messages) == list(range(51, 101))


async def test_the_cache_may_be_ahead_of_the_archive() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    cache.held["p_1_2"] = {s: FakeArchive.message("p_1_2", s, 1) for s in range(51, 104)}
    page = (await history(GetHistory("p_1_2"), context(archive, cache))).reply
    assert page is not None
    assert (seqs(page.messages), page.max_seq) == (list(range(54, 104)), 103)


@pytest.mark.parametrize(
    ("stored", "cached"), [(205, range(256, 261)), (205, range(200, 261, 2)), (0, range(36, 38))]
)
async def test_messages_that_are_nowhere_whole_are_not_denied(
    stored: int, cached: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STORED_S", 0)
    archive, cache = FakeArchive({"p_1_2": stored}), FakeCache()
    cache.held["p_1_2"] = {s: FakeArchive.message("p_1_2", s, 1) for s in cached}
    with pytest.raises(Unavailable):
        await history(GetHistory("p_1_2"), context(archive, cache))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (GetHistory("p_1_2", before_seq=101), range(51, 101)),
        (GetHistory("p_1_2", after_seq=80), range(81, 106)),
    ],
)
async def test_who_has_more_by_push_than_the_archive_does_not_miss_what_is_between(
    asked: GetHistory, expected: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages up to 60 are stored, and the cache is away."""
    monkeypatch.setattr(patience, "LOOK_PAUSE_S", 0)
    archive = FakeArchive({"p_1_2": 105})
    whole = archive.conversations["p_1_2"]
    looks = 0
    view = archive.view

    async def committed_meanwhile(user_id: int, conversation_id: str) -> View | None:
        nonlocal looks
        archive.conversations["p_1_2"] = whole if looks > 2 else {s: whole[s] for s in range(1, 61)}
        looks += 1
        return await view(user_id, conversation_id)

    monkeypatch.setattr(archive, "view", committed_meanwhile)
    page = (await history(asked, context(archive, FakeCache()))).reply
    assert page is not None
    assert (seqs(page.messages), page.max_seq) == (list(expected), 105)


async def test_bounds_behind_the_end_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STORED_S", 0)
    ctx = context(FakeArchive({"p_1_2": 100}), FakeCache())
    page = (await history(GetHistory("p_1_2", before_seq=110), ctx)).reply
    assert page is not None
    assert (seqs(page.messages), page.max_seq) == (list(range(51, 101)), 100)


async def test_a_page_never_jumps_over_a_hole() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    del archive.conversations["p_1_2"][98]
    archive.conversations["p_1_2"][101] = FakeArchive.message("p_1_2", 101, 1)
    forward = (await history(GetHistory("p_1_2", after_seq=95), context(archive, cache))).reply
    newest = (await history(GetHistory("p_1_2"), context(archive, FakeCache()))).reply
    assert forward is not None
    assert newest is not None
    assert (seqs(forward.messages), forward.has_more) == ([96, 97], True)
    assert (seqs(newest.messages), newest.has_more) == ([99, 100], True)


async def test_a_page_of_long_messages_is_cut_to_one_answer() -> None:
    archive = FakeArchive({"p_1_2": 100}, body=60_000)
    ctx = context(archive, FakeCache())
    got: list[int] = []
    more = True
    while more:
        page = (await history(GetHistory("p_1_2", after_seq=len(got), limit=200), ctx)).reply
        assert page is not None
        assert len(bytes(page.messages)) <= MAX_ANSWER + len("[") + 200
        got += seqs(page.messages)
        more = page.has_more
    assert got == list(range(1, 101))


@pytest.mark.parametrize(("conversation_id", "refusal"), [("p_2_3", Forbidden), ("g_1", NotMember)])
async def test_only_members_read(conversation_id: str, refusal: type[AppError]) -> None:
    with pytest.raises(refusal):
        await history(GetHistory(conversation_id), context(FakeArchive({}), FakeCache()))


@settings(max_examples=40)
@given(
    sizes=st.dictionaries(st.integers(2, 40), st.integers(0, 120), max_size=25),
    positions=st.dictionaries(st.integers(2, 40), st.integers(0, 120), max_size=25),
    limit=st.integers(1, 30),
)
async def test_sync_and_history_together_catch_up(
    sizes: dict[int, int], positions: dict[int, int], limit: int
) -> None:
    archive = FakeArchive({f"p_1_{peer}": n for peer, n in sizes.items()})
    ctx = context(archive, FakeCache())
    have = {f"p_1_{peer}": min(at, sizes.get(peer, 0)) for peer, at in positions.items()}
    named = [Position(c, at) for c, at in have.items()]
    got: dict[str, list[int]] = {}
    cursor: str | None = None
    while True:
        page = (await sync(Sync(named, cursor, limit), ctx)).reply
        assert page is not None
        for conversation in page.conversations:
            assert conversation.conversation_id not in got
            found = got[conversation.conversation_id] = seqs(conversation.messages)
            while conversation.has_more and found[-1] < conversation.max_seq:
                rest = (
                    await history(
                        GetHistory(conversation.conversation_id, after_seq=found[-1]), ctx
                    )
                ).reply
                assert rest is not None
                found += seqs(rest.messages)
        cursor = page.next
        if cursor is None:
            break
    expected = {
        f"p_1_{peer}": list(range(have.get(f"p_1_{peer}", 0) + 1, n + 1))
        for peer, n in sizes.items()
    }
    assert got == {c: s for c, s in expected.items() if s}


async def test_a_device_with_more_conversations_than_it_may_name_gets_none_from_the_beginning() -> (
    None
):
    archive = FakeArchive({f"p_1_{peer}": 3 for peer in range(1000, 1700)})
    ctx = context(archive, FakeCache())
    have = sorted(archive.conversations)
    cursor: str | None = None
    for _ in range(20):
        named = [Position(c, 3) for c in have if cursor is None or c > cursor][:500]
        page = (await sync(Sync(named, cursor, 200), ctx)).reply
        assert page is not None
        assert page.conversations == []
        cursor = page.next
        if cursor is None:
            break
    assert cursor is None


@settings(max_examples=60)
@given(
    changes=st.lists(st.integers(1, 20), max_size=60),
    limit=st.integers(1, 9),
    after=st.integers(0, 20),
)
async def test_messages_and_changes_page_to_the_end(
    changes: list[int], limit: int, after: int
) -> None:
    archive = FakeArchive({"p_1_2": 20})
    for seq in changes:
        archive.change("p_1_2", seq)
    ctx = context(archive, FakeCache())
    got: list[int] = []
    newest: dict[int, int] = {}
    seq, rev = after, 0
    for _ in range(200):
        asked = GetHistory("p_1_2", after_seq=seq, after_rev=rev, limit=limit)
        page = (await history(asked, ctx)).reply
        assert page is not None
        assert page.upto_rev is not None
        got += seqs(page.messages)
        for change in decoded(page.changes):
            assert change["rev"] > rev
            newest[change["seq"]] = change["rev"]
        seq, rev = got[-1] if got else seq, page.upto_rev
        if not page.has_more:
            break
    assert got == list(range(after + 1, 21))
    assert rev == len(changes)
    assert newest == {s: r for r, s in enumerate(changes, 1)}


async def test_a_cache_that_missed_a_change_is_not_believed() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    ctx = context(archive, cache)
    await history(GetHistory("p_1_2"), ctx)
    archive.change("p_1_2", 77)
    page = (await history(GetHistory("p_1_2"), ctx)).reply
    assert page is not None
    assert [m["seq"] for m in decoded(page.messages) if m["rev"]] == [77]
    assert cache.rev == 1, "and it is repaired"


async def test_a_change_between_the_view_and_the_messages_is_read_again() -> None:
    archive, cache = FakeArchive({"p_1_2": 100}), FakeCache()
    ctx = context(archive, cache)
    read = archive.read

    async def changed_meanwhile(conversation_id: str, first: int, last: int) -> Messages:
        archive.change(conversation_id, 77)
        return await read(conversation_id, first, last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "read", changed_meanwhile)
        await history(GetHistory("p_1_2"), ctx)
    assert cache.rev == 0, "what was known before the messages were read"
    archive.change("p_1_2", 78)
    page = (await history(GetHistory("p_1_2"), ctx)).reply
    assert page is not None
    assert [m["seq"] for m in decoded(page.messages) if m["rev"]] == [77, 78]


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_what_is_cleared_or_too_old_is_not_there(limit: int) -> None:
    archive, cache = FakeArchive({"p_1_2": 30}), FakeCache()
    archive.mine["p_1_2"] = Mine(cleared_seq=12, from_seq=5)
    for seq in (4, 12, 13, 30):
        archive.change("p_1_2", seq)
    ctx = context(archive, cache)
    for _ in range(2):  # from the archive, then from the cache
        forward: list[int] = []
        backward: list[int] = []
        while len(forward) < 18:
            page = (
                await history(
                    GetHistory("p_1_2", after_seq=forward[-1] if forward else 0, limit=limit), ctx
                )
            ).reply
            assert page is not None
            forward += seqs(page.messages)
            assert page.has_more is (len(forward) < 18)
        while len(backward) < 18:
            before = backward[0] if backward else None
            page = (await history(GetHistory("p_1_2", before_seq=before, limit=limit), ctx)).reply
            assert page is not None
            backward = seqs(page.messages) + backward
            assert page.has_more is (len(backward) < 18)
        assert forward == backward == list(range(13, 31))
    assert page is not None
    assert page.first_seq == 13
    changed = (await history(GetHistory("p_1_2", after_rev=0), ctx)).reply
    assert changed is not None
    assert seqs(changed.changes) == [13, 30]
    assert changed.upto_rev == 4


async def test_sync_tells_of_what_was_read_in_a_group() -> None:
    archive = FakeArchive({"g_1_1": 3})
    archive.mine["g_1_1"] = Mine(read_seq=2)
    ctx = context(archive, FakeCache())
    for known, expected in ((None, 0), (1, 1), (2, 0)):
        page = (await sync(Sync([Position("g_1_1", 3, 0, known)]), ctx)).reply
        assert page is not None
        assert len(page.conversations) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (GetHistory("p_1_2", after_seq=3, limit=4), [4, 5, 6, 7]),
        (GetHistory("p_1_2", after_seq=3, before_seq=7), [4, 5, 6]),
        # What is stored of it lies at its far end: given alone, it would hide the rest from one who pages backward.
        (GetHistory("p_1_2", before_seq=8, limit=6), [2, 3, 4, 5, 6, 7]),
    ],
)
async def test_messages_between_cache_and_archive_are_waited_for(
    asked: GetHistory, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOOK_PAUSE_S", 0)
    archive, cache = FakeArchive({"p_1_2": 10}), FakeCache()
    whole = archive.conversations["p_1_2"]
    cache.held["p_1_2"] = {s: whole[s] for s in (9, 10)}
    archive.conversations["p_1_2"] = {s: whole[s] for s in range(1, 4)}
    with monkeypatch.context() as m:
        m.setattr(patience, "STORED_S", 0)
        with pytest.raises(Unavailable):
            await history(asked, context(archive, cache))
    read = archive.read

    async def committed_meanwhile(conversation_id: str, first: int, last: int) -> Messages:
        found = await read(conversation_id, first, last)
        archive.conversations["p_1_2"] = whole
        return found

    monkeypatch.setattr(archive, "read", committed_meanwhile)
    page = (await history(asked, context(archive, cache))).reply
    assert page is not None
    assert seqs(page.messages) == expected


async def test_a_cursor_of_something_else_is_refused() -> None:
    with pytest.raises(BadRequest):
        await sync(Sync([], "1.1796000000000.p_1_2"), context(FakeArchive({}), FakeCache()))


async def test_sync_brings_what_is_acked_and_not_stored_yet() -> None:
    """Its pushes were over when the device came: nobody would tell it."""
    archive, cache = FakeArchive({"p_1_2": 60}), FakeCache()
    cache.held["p_1_2"] = {s: FakeArchive.message("p_1_2", s, 1) for s in range(51, 64)}
    for begun in ("p_1_4", "p_1_9", "p_2_3"):
        cache.held[begun] = {1: FakeArchive.message(begun, 1, 1)}
    ctx = context(archive, cache, fresh=("p_1_4", "p_1_9", "p_2_3"))
    reply = (await sync(Sync([Position("p_1_2", 60, 0)]), ctx)).reply
    assert reply is not None
    assert {c.conversation_id: seqs(c.messages) for c in reply.conversations} == {
        "p_1_2": [61, 62, 63],
        "p_1_4": [1],
        "p_1_9": [1],
    }
    assert [(c.max_seq, c.has_more) for c in reply.conversations] == [
        (63, False), (1, False), (1, False)
    ]  # fmt: skip
    found: list[str] = []
    cursor = None
    while found == [] or cursor is not None:
        reply = (await sync(Sync([], cursor, 1), ctx)).reply
        assert reply is not None
        assert len(reply.conversations) == 1
        found += [c.conversation_id for c in reply.conversations]
        cursor = reply.next
    assert found == ["p_1_2", "p_1_4", "p_1_9"]
