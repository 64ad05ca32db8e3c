"""A partition in an owner's hands, and what its records need to be loaded."""

from collections.abc import Iterable
from typing import TypeVar

from functions.timeline.metrics import Counters
from functions.timeline.pending import Pending
from functions.timeline.state import (
    Answer,
    Conversation,
    Entry,
    Place,
    Position,
    Post,
    Progress,
    State,
)
from functions.timeline.store import Loaded, Referred, Store
from schemas.records import DeliveredRequested, ReadRequested
from shared.patience import patiently

K = TypeVar("K")
V = TypeVar("V", Conversation, Answer, Post, Position)


class Owned:
    """One partition in this owner's hands; thrown away whole when it is lost.

    known: values of `log_progress` that this owner has stored, or is storing, since its last load began. A load that
    finds one of them may be used whichever it is: what is not in memory has no rows in the commits in between.
    """

    __slots__ = ("_evicted", "committed", "committing", "known", "pending", "state")

    def __init__(self, partition: int, progress: Progress) -> None:
        self.state = State(partition, progress)
        self.committed = progress
        self.committing = progress
        self.known = {progress}
        self.pending = Pending(progress)
        self._evicted = progress

    def evict(self, max_conversations: int, max_answers: int) -> None:
        """Nothing that is not stored yet may be forgotten: SQL does not have it."""
        if self._evicted is self.committed:
            return
        self._evicted = self.committed
        state, stored = self.state, self.committed.next
        _forget_oldest(state.conversations, max_conversations, stored)
        _forget_oldest(state.answers, max_answers, stored)
        _forget_oldest(state.posts, max_answers, stored)
        _forget_oldest(state.positions, max_conversations, stored)
        gone = []
        for msg_id, effect in state.accepted.items():  # oldest first
            if effect.offset >= stored:
                break
            gone.append(msg_id)
        for msg_id in gone:
            del state.accepted[msg_id]


async def load(store: Store, entries: Iterable[tuple[Owned, Entry]], counters: Counters) -> None:
    """Fetches what the records need and is not in memory: one query for what each of them has, one more if there are
    changes. Raises: FencedError.
    """
    expected: dict[int, set[Progress]] = {}
    ids: dict[str, Owned] = {}
    keys: dict[bytes, Owned] = {}
    posts: dict[int, Owned] = {}
    places: dict[Place, Owned] = {}
    for owned, entry in entries:
        request = entry.request
        if request is None:
            continue
        state = owned.state
        conversation_id, conversations = request.conversation_id, state.conversations
        conversation = conversations.pop(conversation_id, None)
        if conversation is not None:
            conversations[conversation_id] = conversation  # the newest stand last
        else:
            ids[conversation_id] = owned
        if entry.key:
            if entry.key not in state.answers and not _surely_new(entry, conversation):
                keys[entry.key] = owned
        elif isinstance(request, ReadRequested | DeliveredRequested):
            place = (request.user_id, conversation_id)
            if place not in state.positions:
                places[place] = owned
        elif entry.post and entry.post not in state.posts and entry.post not in state.accepted:
            posts[entry.post] = owned
        if state.partition not in expected:
            owned.known = {owned.committed, owned.committing}
            expected[state.partition] = owned.known
    if ids or keys:
        loaded: Loaded = await patiently(
            lambda: store.load(expected, list(ids), list(keys)), counters
        )
        for conversation_id, owned in ids.items():
            owned.state.conversations[conversation_id] = (
                loaded.conversations.get(conversation_id) or Conversation()
            )
        for key, answer in loaded.answers.items():
            keys[key].state.answers[key] = answer
    if posts or places:
        referred: Referred = await patiently(
            lambda: store.load_referred(expected, list(posts), list(places)), counters
        )
        for post, found in referred.posts.items():
            posts[post].state.posts[post] = found
        for place, position in referred.positions.items():
            places[place].state.positions[place] = position


def _surely_new(entry: Entry, conversation: Conversation | None) -> bool:
    """Whether no message of the conversation can have its key: all that have a UUIDv7 have a smaller one.

    So it needs no trust in the clocks that UUIDs are made by: one that is ahead only makes the others be looked up.
    """
    return conversation is not None and entry.uuid > conversation.max_uuid


def _forget_oldest(cache: dict[K, V], most: int, stored: int) -> None:
    """Shrinks a cache, whose oldest entries stand first, to `most` entries; only those from before offset `stored`."""
    while len(cache) > most:
        oldest = next(iter(cache))
        if cache[oldest].offset >= stored:
            return
        del cache[oldest]
