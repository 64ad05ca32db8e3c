"""Unread messages and mentions against a model: any order of send, store, recall, read, clear and asking.

The rows are written as the timeline writes them: a message counts from its ack on, out of the hot cache until it is
stored; recalls and reads count from their COMMIT on, which comes before their ack.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.history.listing import Deps, clear, list_conversations
from functions.history.shelf import SqlShelf
from migrations.schema import upgrade
from schemas.conversations import ClearConversation, ListConversations
from schemas.messages import Mention
from shared.adapters.sql import open_engine
from shared.function import Context
from tests.archive import Acked, Archive

PRIVATE, GROUP = "p_1_2", "g_5"
USERS = (1, 2, 3)
"""1 and 2 talk to each other; all three are in the group, 3 since its second message."""
conversations = st.sampled_from([PRIVATE, GROUP])
users = st.sampled_from(USERS)


class Holder(msgspec.Struct):
    """Deps of the function, as far as the list goes."""

    listing: Deps


class Model(msgspec.Struct):
    """A conversation in the simplest words."""

    messages: list[tuple[int, list[Mention]]] = []
    recalled: set[int] = set()
    read: dict[int, int] = {}
    cleared: dict[int, int] = {}
    joined_after: dict[int, int] = {}

    def unread(self, user_id: int) -> tuple[int, int]:
        """Messages and mentions."""
        bounds = (self.read, self.cleared, self.joined_after)
        seen = max(bound.get(user_id, 0) for bound in bounds)
        new = [
            mentions
            for seq, (sender, mentions) in enumerate(self.messages, 1)
            if seq > seen and sender != user_id and seq not in self.recalled
        ]
        return len(new), sum(user_id in m or "all" in m for m in new)


class Unread(RuleBasedStateMachine):
    """Every step asks for the lists of all users and compares."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.folder / "im.db")
        self.runner = asyncio.Runner()
        self.engine = open_engine(f"sqlite+aiosqlite:///{self.folder / 'im.db'}")
        self.archive = Archive(self.engine)
        self.acked = Acked()
        self.deps = Deps(SqlShelf(self.engine), self.acked)
        self.models = {PRIVATE: Model(), GROUP: Model(joined_after={3: 1})}

    def teardown(self) -> None:
        self.runner.run(self.engine.dispose())
        self.runner.close()
        shutil.rmtree(self.folder)

    def context(self, user_id: int) -> Context[Any]:
        return Context(user_id, Holder(self.deps), 0)

    @initialize()
    def join(self) -> None:
        """A group has its members' rows from the start."""
        for user_id in USERS:
            joined = self.models[GROUP].joined_after.get(user_id, 0)
            self.runner.run(self.archive.member(user_id, GROUP, from_seq=joined))

    @rule(
        conversation=conversations,
        sender=users,
        mentions=st.lists(st.sampled_from([*USERS, "all"]), max_size=3, unique=True),
    )
    def send(self, conversation: str, sender: int, mentions: list[Mention]) -> None:
        """Acked and cached, not stored."""
        if conversation == PRIVATE and sender == 3:
            return
        self.acked.messages.append(self.archive.message(conversation, sender, mentions=mentions))
        self.models[conversation].messages.append((sender, mentions))
        self.acked.fresh |= {PRIVATE} if conversation == PRIVATE else frozenset()

    @rule()
    def store(self) -> None:
        """COMMIT."""
        pending, self.acked.messages = self.acked.messages, []
        for message in pending:
            self.runner.run(self.archive.store(message))

    @precondition(lambda self: any(m.messages for m in self.models.values()))
    @rule(conversation=conversations, at=st.integers(0, 99))
    def recall(self, conversation: str, at: int) -> None:
        """A message may be recalled in the batch that brings it."""
        model = self.models[conversation]
        if not model.messages:
            return
        seq = at % len(model.messages) + 1
        if seq in model.recalled:
            return
        self.store()
        self.runner.run(self.archive.recall(conversation, seq))
        model.recalled.add(seq)

    @rule(conversation=conversations, user=users, at=st.integers(0, 99))
    def read(self, conversation: str, user: int, at: int) -> None:
        """From any device; only forward."""
        model = self.models[conversation]
        seq = at % (len(model.messages) + 1)
        if seq <= model.read.get(user, 0) or (conversation == PRIVATE and user == 3):
            return
        self.store()
        self.runner.run(self.archive.read(conversation, user, seq))
        model.read[user] = seq

    @rule(conversation=conversations, user=users, at=st.none() | st.integers(0, 99))
    def clear(self, conversation: str, user: int, at: int | None) -> None:
        """For oneself, all or a part."""
        model = self.models[conversation]
        newest = len(model.messages)
        if not newest or (conversation == PRIVATE and user == 3):
            return
        if not self.archive.heads[conversation]["stored"]:
            self.store()
        self.runner.run(clear(ClearConversation(conversation, at), self.context(user)))
        upto = newest if at is None else min(at, newest)
        model.cleared[user] = max(model.cleared.get(user, 0), upto)

    @invariant()
    def everybody_counts_right(self) -> None:
        """All lists are as the models say."""
        for user_id in USERS:
            asked = list_conversations(ListConversations(), self.context(user_id))
            page = self.runner.run(asked).reply
            assert page is not None
            found = {c.conversation_id: (c.unread, c.mentions) for c in page.conversations}
            for conversation, model in self.models.items():
                if conversation == PRIVATE and user_id == 3:
                    assert conversation not in found
                elif model.messages and (
                    conversation == PRIVATE or self.archive.heads[conversation]["stored"]
                ):
                    assert found[conversation] == model.unread(user_id), (user_id, conversation)


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A migrated database, which every run gets a copy of."""
    path = tmp_path_factory.mktemp("template") / "im.db"

    async def make() -> None:
        engine = open_engine(f"sqlite+aiosqlite:///{path}")
        await upgrade(engine)
        await engine.dispose()

    asyncio.run(make())
    Unread.template = path


TestUnread = Unread.TestCase
TestUnread.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
