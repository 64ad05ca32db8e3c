"""`pairs`: one of each sends, the other receives; every message is followed from its sending to its delivery."""

import asyncio
import sys
from time import perf_counter

from shared.ids import private_conversation
from tests.bench.histogram import Histogram
from tests.bench.pace import Pace, settled
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import Connection, count_error, number_after, text_frame

ID_PREFIX = b"01900000-0000-7000-8000-"
"""Ids are as long as the UUIDv7 of a real client; the last twelve digits count."""
_REFUSED = -1


class Pair:
    """One conversation; index n of the lists belongs to its message n.

    acked: `seq` that the sender was told, 0 before. pushed: `seq` that the receiver got. quota: most messages for now,
    so that a bounded part gives every pair the same number.
    """

    def __init__(self, load: "Pairs", sender: int) -> None:
        self.conversation_id = private_conversation(sender, sender + 1)
        self.due: list[float] = []
        self.quota = sys.maxsize
        self.acked: list[int] = []
        self.pushed: list[int] = []
        self.sender = Sender(load, self, sender + 1)
        self.receiver: Receiver = Receiver(load, self)

    def next(self, due: float) -> int:
        """The number of a new message, to be sent at `due`."""
        self.due.append(due)
        self.acked.append(0)
        self.pushed.append(0)
        return len(self.due) - 1


class Sender(Connection):
    """Sends, and counts acks; in a closed loop each one starts the next message."""

    def __init__(self, load: "Pairs", pair: Pair, receiver: int) -> None:
        super().__init__()
        self._load = load
        self._pair = pair
        self._frames: list[bytes] = []
        self._receiver = receiver
        self._content = b"x" * load.job.body

    def send(self, due: float) -> None:
        """Puts a message into the next write."""
        n = self._pair.next(due)
        self._load.waiting += 1
        self._frames.append(
            text_frame(
                b'{"type":"message.send","id":%d,"data":{"client_msg_id":"%b%012d","receiver_id":%d,"content":"%b"}}'
                % (n, ID_PREFIX, n, self._receiver, self._content)
            )
        )

    def text(self, data: bytes, start: int, stop: int) -> None:
        """An ack, an error, or a push."""
        if data.startswith(b'{"type":"ack"', start):
            n = number_after(data, b'"id":', start, stop)
            self._load.acked(self._pair, n, number_after(data, b'"seq":', start, stop), self.now)
        elif data.startswith(b'{"type":"error"', start):
            count_error(self._load.result, data, start, stop)
            self._load.refused(self._pair, number_after(data, b'"id":', start, stop))
        else:
            return
        if self._load.closed_loop and self._load.may_begin(self._pair):
            self.send(self.now)

    def batch_ended(self) -> None:
        """Writes all that became due."""
        if self._frames:
            self.write(b"".join(self._frames))
            self._frames.clear()


class Receiver(Connection):
    """Checks that `seq` has no gap, no repeat and no step back."""

    def __init__(self, load: "Pairs", pair: Pair) -> None:
        super().__init__()
        self._load = load
        self._pair = pair
        self._last = 0

    def text(self, data: bytes, start: int, stop: int) -> None:
        """A message, or something else that is not counted."""
        if not data.startswith(b'{"type":"message"', start):
            return
        seq = number_after(data, b'"seq":', start, stop)
        n = number_after(data, b'"client_msg_id":"' + ID_PREFIX, start, stop)
        result = self._load.result
        if self._pair.pushed[n]:
            result.problem("double")
            return
        if seq != self._last + 1:
            result.problem("misordered")
        self._last = seq
        self._load.pushed(self._pair, n, seq, self.now)


class Pairs:
    """See `tests.bench.load.Load`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.waiting = 0
        """Messages sent and not answered, or acked and not delivered."""
        self.result = Result()
        self.pace = Pace(Part(seconds=0))
        self.closed_loop = True
        self._ack_times = Histogram()
        self._push_times = Histogram()
        self._last_ack = self._last_push = 0.0
        self._next_pair = 0
        users = range(job.first, job.first + job.users, 2)
        self._pairs: list[Pair] = [Pair(self, user_id) for user_id in users]
        self._starts = [0] * len(self._pairs)

    async def connect(self) -> Result:
        """Opens both connections of all pairs."""
        result, times = Result(), Histogram()
        started = perf_counter()
        for i, pair in enumerate(self._pairs):
            user_id = self.job.first + 2 * i
            for seconds in await asyncio.gather(
                pair.sender.open(self.job, user_id), pair.receiver.open(self.job, user_id + 1)
            ):
                times.record(seconds)
                result.count("connected")
        result.finished["connected"] = perf_counter() - started
        result.latencies["connect"] = times.buckets
        return result

    async def run(self, part: Part) -> Result:
        """Sends, then waits until every message is acked and delivered."""
        self.result = Result()
        self._ack_times, self._push_times = Histogram(), Histogram()
        self._starts = [len(pair.due) for pair in self._pairs]
        for pair in self._pairs:
            pair.quota = (
                len(pair.due) + -(-part.most // len(self._pairs)) if part.most else sys.maxsize
            )
        self.closed_loop = not part.rate
        self.pace = pace = Pace(part)
        self._last_ack = self._last_push = pace.started
        if self.closed_loop:
            self._fill()
        await pace.run(self._send_one)
        await settled(lambda: not self.waiting)
        self._conclude()
        return self.result

    def progress(self) -> int:
        """Messages begun."""
        return self.pace.begun

    def may_begin(self, pair: Pair) -> bool:
        """Whether the pair may send one more; counts it."""
        return len(pair.due) < pair.quota and self.pace.begin()

    def acked(self, pair: Pair, n: int, seq: int, now: float) -> None:
        """The sender was told `seq`."""
        if pair.acked[n]:
            self.result.problem("answered twice")
            return
        pair.acked[n] = seq
        self._ack_times.record(now - pair.due[n])
        self._last_ack = now
        if pair.pushed[n]:
            self.waiting -= 1

    def pushed(self, pair: Pair, n: int, seq: int, now: float) -> None:
        """The receiver got the message."""
        pair.pushed[n] = seq
        self._push_times.record(now - pair.due[n])
        self._last_push = now
        if pair.acked[n] > 0:
            self.waiting -= 1

    def refused(self, pair: Pair, n: int) -> None:
        """The sender got an error."""
        pair.acked[n] = _REFUSED
        self.waiting -= 1

    def _fill(self) -> None:
        now = perf_counter()
        for _ in range(self.job.in_flight):
            for pair in self._pairs:
                if self.may_begin(pair):
                    pair.sender.send(now)
        for pair in self._pairs:
            pair.sender.batch_ended()

    def _send_one(self, due: float) -> None:
        sender = self._pairs[self._next_pair].sender
        self._next_pair = (self._next_pair + 1) % len(self._pairs)
        sender.send(due)
        sender.batch_ended()

    def _conclude(self) -> None:
        result = self.result
        for pair, start in zip(self._pairs, self._starts, strict=True):
            for acked, pushed in zip(pair.acked[start:], pair.pushed[start:], strict=True):
                if acked > 0:
                    result.count("acked")
                    result.problem("lost", pushed == 0)
                    result.problem("numbered differently", pushed not in (0, acked))
                elif acked == 0:
                    result.problem("unanswered")
                result.count("delivered", pushed > 0)
            for end in (pair.sender, pair.receiver):
                result.problem("connections lost", end.lost)
        result.finished["acked"] = self._last_ack - self.pace.started
        result.finished["delivered"] = self._last_push - self.pace.started
        result.latencies = {"ack": self._ack_times.buckets, "delivery": self._push_times.buckets}
