"""`reads`: one user of each pair reads pages of 50, the newest ones or, `cold`, older ones than the cache keeps."""

from time import perf_counter

from shared.hot import KEPT
from shared.ids import private_conversation
from tests.bench.histogram import Histogram
from tests.bench.loads.crowd import AT_ONCE, open_all
from tests.bench.pace import Pace, settled
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import Connection, count_error, number_after, text_frame

MESSAGES_READ = "messages read"


class Asking(Connection):
    """A connection that asks something whenever it is due."""

    def ask(self, due: float) -> None:
        """Sends one request."""
        raise NotImplementedError


class Reader(Asking):
    """Reads one conversation, page after page."""

    def __init__(self, load: "Reads", conversation_id: str) -> None:
        super().__init__()
        self._load = load
        self._conversation = conversation_id.encode()
        self._due: dict[int, tuple[float, int]] = {}
        self._n = 0

    def ask(self, due: float) -> None:
        """Sends one request."""
        job = self._load.job
        last = job.seeded
        bound = b""
        if job.cold:
            # Below the newest ones, which the cache keeps; a different page each time.
            last = job.limit + self._n % (job.seeded - KEPT - job.limit + 1)
            bound = b',"before_seq":%d' % (last + 1)
        self._due[self._n] = due, last
        self._load.waiting += 1
        self.write(
            text_frame(
                b'{"type":"message.history","id":%d,"data":{"conversation_id":"%b","limit":%d%b}}'
                % (self._n, self._conversation, job.limit, bound)
            )
        )
        self._n += 1

    def text(self, data: bytes, start: int, stop: int) -> None:
        """A page or an error."""
        load = self._load
        if data.startswith(b'{"type":"ack"', start):
            due, last = self._due.pop(number_after(data, b'"id":', start, stop))
            load.read(self.now - due, self.now)
            messages = data.count(b'"msg_id":', start, stop)
            load.result.count(MESSAGES_READ, messages)
            first = number_after(data, b'"seq":', start, stop)
            if messages != load.job.limit or first != last - load.job.limit + 1:
                load.result.problem("wrong pages")
        elif data.startswith(b'{"type":"error"', start):
            self._due.pop(number_after(data, b'"id":', start, stop), None)
            count_error(load.result, data, start, stop)
        else:
            return
        load.waiting -= 1
        if load.closed_loop and load.pace.begin():
            self.ask(self.now)


class Reads:
    """See `tests.bench.load.Load`. `latency`: what its times are called."""

    latency = "history"

    def __init__(self, job: Job) -> None:
        self.job = job
        self.waiting = 0
        self.result = Result()
        self.pace = Pace(Part(seconds=0))
        self.closed_loop = True
        self._times = Histogram()
        self._last = 0.0
        self._next_reader = 0
        users = range(job.first, job.first + job.users, 2)
        self._readers: list[tuple[int, Asking]] = [
            (u, Reader(self, private_conversation(u, u + 1))) for u in users
        ]

    async def connect(self) -> Result:
        """Opens one connection for each pair."""
        return await open_all(self._readers, self.job, "connected", AT_ONCE)

    async def run(self, part: Part) -> Result:
        """Reads, then waits for the last page."""
        self.result = Result()
        self._times = Histogram()
        self.closed_loop = not part.rate
        self.pace = pace = Pace(part)
        self._last = pace.started
        if self.closed_loop:
            for _ in range(self.job.in_flight):
                for _, reader in self._readers:
                    if pace.begin():
                        reader.ask(perf_counter())
        await pace.run(self._ask_one)
        await settled(lambda: not self.waiting)
        result = self.result
        result.problem("unanswered", self.waiting)
        result.problem("connections lost", sum(reader.lost for _, reader in self._readers))
        result.finished["reads"] = self._last - pace.started
        result.latencies = {self.latency: self._times.buckets}
        return result

    def progress(self) -> int:
        """Requests begun."""
        return self.pace.begun

    def read(self, seconds: float, now: float) -> None:
        """A page came."""
        self.result.count("reads")
        self._times.record(seconds)
        self._last = now

    def _ask_one(self, due: float) -> None:
        self._readers[self._next_reader][1].ask(due)
        self._next_reader = (self._next_reader + 1) % len(self._readers)
