"""`chatters`: both users of each pair write, read and lose their connection, as people do.

Each keeps what a client would: the set of `seq` that he has of the conversation, from acks, pushes and pages. In the
end everybody must have everything.
"""

import asyncio
import re
from random import Random
from time import perf_counter

from shared.ids import private_conversation
from tests.bench.histogram import Histogram
from tests.bench.loads.crowd import AT_ONCE, open_all
from tests.bench.loads.pairs import ID_PREFIX
from tests.bench.loads.reads import MESSAGES_READ
from tests.bench.pace import Pace, settled
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import Connection, count_error, number_after, text_frame

SHARES = (0.70, 0.93, 0.97)
"""Of all actions: sends up to here, then newest pages, then older pages, and the rest are reconnects."""
GIVEN_UP = "given up"
"""Requests whose connection broke before the answer: nobody was told whether they happened."""
_SEQS = re.compile(rb'"seq":(\d+)')


class Chatter(Connection):
    """One user with one connection."""

    def __init__(self, load: "Chatters", user_id: int, peer: int) -> None:
        super().__init__()
        self._load = load
        self.user_id = user_id
        self._peer = peer
        self.conversation_id = private_conversation(user_id, peer)
        self.seqs: set[int] = set(range(1, load.job.seeded + 1))
        self._sent = 0
        self._asked: dict[int, tuple[str, float]] = {}
        self._n = 0
        self._last_push = 0
        self.away = False

    def send(self, due: float) -> None:
        """Writes a message."""
        # Both sides, and the messages that were there before, must differ in their ids.
        number = (self.user_id % 2 + 1) * 10**9 + self._sent
        self._sent += 1
        content = b"x" * self._load.job.body
        data = b'"client_msg_id":"%b%012d","receiver_id":%d,"content":"%b"' % (
            ID_PREFIX,
            number,
            self._peer,
            content,
        )
        self._ask("ack", b"message.send", data, due)

    def page(self, due: float, before: int = 0) -> None:
        """Reads 50 messages."""
        bound = b',"before_seq":%d' % before if before else b""
        self._ask(
            "history",
            b"message.history",
            b'"conversation_id":"%b"%b' % (self.conversation_id.encode(), bound),
            due,
        )

    async def reconnect(self, due: float) -> None:
        """Loses the connection, comes back, and reads what is new."""
        self.away = True
        await self.drop()
        self._load.waiting -= len(self._asked)
        self._load.result.count(GIVEN_UP, len(self._asked))
        self._asked.clear()
        self._last_push = 0
        try:
            await self.open(self._load.job, self.user_id)
        except (OSError, TimeoutError) as error:
            self._load.result.problem(f"not reconnected: {type(error).__name__}")
            return
        self._load.done("reconnect", perf_counter() - due)
        self.away = False
        self.page(perf_counter())

    def text(self, data: bytes, start: int, stop: int) -> None:
        """An answer or a push."""
        if data.startswith(b'{"type":"ack"', start):
            kind, due = self._asked.pop(number_after(data, b'"id":', start, stop))
            self.seqs.update(int(seq) for seq in _SEQS.findall(data, start, stop))
            if kind == "history":
                self._load.result.count(MESSAGES_READ, data.count(b'"msg_id":', start, stop))
            self._load.waiting -= 1
            self._load.done(kind, self.now - due)
        elif data.startswith(b'{"type":"message"', start):
            seq = number_after(data, b'"seq":', start, stop)
            if seq <= self._last_push:
                self._load.result.problem("double" if seq == self._last_push else "misordered")
            self._last_push = seq
            self.seqs.add(seq)
        elif data.startswith(b'{"type":"error"', start):
            self._asked.pop(number_after(data, b'"id":', start, stop), None)
            self._load.waiting -= 1
            count_error(self._load.result, data, start, stop)

    def _ask(self, kind: str, command: bytes, data: bytes, due: float) -> None:
        self._asked[self._n] = kind, due
        self._load.waiting += 1
        self.write(text_frame(b'{"type":"%b","id":%d,"data":{%b}}' % (command, self._n, data)))
        self._n += 1


class Chatters:
    """See `tests.bench.load.Load`. Always an open loop: people do not wait for the server."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.waiting = 0
        self.result = Result()
        self.pace = Pace(Part(seconds=0))
        self._random = Random(job.first)
        self._times: dict[str, Histogram] = {}
        self._last = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        pairs = range(job.first, job.first + job.users, 2)
        self._chatters = [Chatter(self, *who) for a in pairs for who in ((a, a + 1), (a + 1, a))]

    async def connect(self) -> Result:
        """Opens one connection for each user."""
        return await open_all(
            ((c.user_id, c) for c in self._chatters), self.job, "connected", AT_ONCE
        )

    async def run(self, part: Part) -> Result:
        """Chats, then has everybody read the newest page once more."""
        self.result = Result()
        self._times = {}
        self.pace = pace = Pace(part)
        self._last = pace.started
        await pace.run(self._act)
        await settled(lambda: not self.waiting and not self._tasks)
        for name in ("actions", "acked", "reads"):
            if self.result.counts.get(name):
                self.result.finished[name] = self._last - pace.started
        self.result.latencies = {kind: times.buckets for kind, times in self._times.items()}
        self._conclude()
        return self.result

    def progress(self) -> int:
        """Actions begun."""
        return self.pace.begun

    def done(self, kind: str, seconds: float) -> None:
        """An action is through."""
        self._times.setdefault(kind, Histogram()).record(seconds)
        self._last = perf_counter()
        self.result.count("actions")
        self.result.count({"ack": "acked", "history": "reads", "reconnect": "reconnects"}[kind])

    def _act(self, due: float) -> None:
        chatter = self._random.choice(self._chatters)
        what = self._random.random()
        if chatter.away:
            return
        if what < SHARES[0]:
            chatter.send(due)
        elif what < SHARES[1]:
            chatter.page(due)
        elif what < SHARES[2]:
            chatter.page(due, before=max(chatter.seqs))
        else:
            task = asyncio.get_running_loop().create_task(chatter.reconnect(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _conclude(self) -> None:
        result = self.result
        result.problem("unanswered", self.waiting)
        for one, other in zip(self._chatters[::2], self._chatters[1::2], strict=True):
            newest = max(one.seqs | other.seqs)
            result.problem("lost", 2 * newest - len(one.seqs) - len(other.seqs))
        result.problem("connections lost", sum(c.lost for c in self._chatters))
