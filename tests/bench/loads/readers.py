"""`readers`: as `pairs`, and the receiver says of every message that he has read it."""

from tests.bench.histogram import Histogram
from tests.bench.loads.pairs import Pair, Pairs, Receiver
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import count_error, number_after, text_frame


class ReadingReceiver(Receiver):
    """Answers every push with `message.read`."""

    def __init__(self, load: "Readers", pair: Pair) -> None:
        super().__init__(load, pair)
        self._readers = load
        self._conversation = pair.conversation_id.encode()
        self._asked: dict[int, float] = {}
        self._frames: list[bytes] = []

    def text(self, data: bytes, start: int, stop: int) -> None:
        """A message, the ack of a read, or something else."""
        super().text(data, start, stop)
        if data.startswith(b'{"type":"message"', start):
            seq = number_after(data, b'"seq":', start, stop)
            self._asked[seq] = self.now
            self._load.waiting += 1
            self._frames.append(
                text_frame(
                    b'{"type":"message.read","id":%d,"data":{"conversation_id":"%b","seq":%d}}'
                    % (seq, self._conversation, seq)
                )
            )
        elif data.startswith(b'{"type":"ack"', start):
            due = self._asked.pop(number_after(data, b'"id":', start, stop))
            self._readers.has_read(self.now - due)
            self._load.waiting -= 1
        elif data.startswith(b'{"type":"error"', start):
            self._asked.pop(number_after(data, b'"id":', start, stop), None)
            count_error(self._load.result, data, start, stop)
            self._load.waiting -= 1

    def batch_ended(self) -> None:
        """Writes what was read."""
        if self._frames:
            self.write(b"".join(self._frames))
            self._frames.clear()


class ReadPair(Pair):
    """One conversation."""

    def __init__(self, load: "Readers", sender: int) -> None:
        super().__init__(load, sender)
        self.receiver = ReadingReceiver(load, self)


class Readers(Pairs):
    """See `tests.bench.load.Load`."""

    def __init__(self, job: Job) -> None:
        self._read_times = Histogram()
        super().__init__(job)
        users = range(job.first, job.first + job.users, 2)
        self._pairs = [ReadPair(self, user_id) for user_id in users]

    async def run(self, part: Part) -> Result:
        """Sends and reads, then waits until everything is answered."""
        self._read_times = Histogram()
        result = await super().run(part)
        result.latencies["read"] = self._read_times.buckets
        return result

    def has_read(self, seconds: float) -> None:
        """A read position stands."""
        self.result.count("positions read")
        self._read_times.record(seconds)
