"""`fan_out`: one member of a group sends, all others get every message. Devices compare bytes and parse nothing."""

from time import perf_counter

from tests.bench.histogram import Histogram
from tests.bench.loads.crowd import AT_ONCE, open_all
from tests.bench.loads.pairs import ID_PREFIX
from tests.bench.pace import Pace, settled
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import Connection, count_error, number_after, text_frame


class Sender(Connection):
    """Sends; a message counts as answered when it is acked and every device has it."""

    def __init__(self, load: "FanOut") -> None:
        super().__init__()
        self._load = load

    def text(self, data: bytes, start: int, stop: int) -> None:
        """An ack or an error."""
        if data.startswith(b'{"type":"ack"', start):
            self._load.answered(self.now, acked=True)
        elif data.startswith(b'{"type":"error"', start):
            count_error(self._load.result, data, start, stop)
            self._load.answered(self.now, acked=False)


class Device(Connection):
    """Gets the same frames as all others, in the same order."""

    def __init__(self, load: "FanOut") -> None:
        super().__init__()
        self._load = load
        self.got = 0

    def text(self, data: bytes, start: int, stop: int) -> None:
        """A message, which is the next one that the first device got, or a new one if this is the first."""
        if not data.startswith(b'{"type":"message"', start):
            return
        load = self._load
        payload = data[start:stop]
        if self.got == len(load.messages):
            load.arrived(payload)
        elif payload != load.messages[self.got]:
            load.result.problem("misordered")
        load.delivered(self.got, self.now)
        self.got += 1


class FanOut:
    """See `tests.bench.load.Load`. User `first` sends; the next `connections` users have a device each."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result = Result()
        self.pace = Pace(Part(seconds=0))
        self.messages: list[bytes] = []
        """What the devices get, as the first of them got it."""
        self._due: list[float] = []
        self._sent = 0
        self._acked = 0
        self._unanswered = 0
        self._missing = 0
        self._closed_loop = True
        self._times = Histogram()
        self._last_ack = self._last_delivery = 0.0
        self._number_of: list[int] = []
        self._left: list[int] = []
        self._sender = Sender(self)
        self._devices = [Device(self) for _ in range(job.connections)]

    async def connect(self) -> Result:
        """Opens the sender and all devices."""
        await self._sender.open(self.job, self.job.first)
        users = enumerate(self._devices, self.job.first + 1)
        return await open_all(users, self.job, "connected", AT_ONCE)

    async def run(self, part: Part) -> Result:
        """Sends, then waits until every device has every message."""
        self.result = Result()
        self._times = Histogram()
        self._acked = 0
        first = len(self.messages)
        self._closed_loop = not part.rate
        self.pace = pace = Pace(part)
        self._last_ack = self._last_delivery = pace.started
        if self._closed_loop:
            for _ in range(self.job.in_flight):
                if pace.begin():
                    self._send(perf_counter())
        await pace.run(self._send)
        await settled(lambda: not self._unanswered and not self._missing)
        self._conclude(first)
        return self.result

    def progress(self) -> int:
        """Messages begun."""
        return self.pace.begun

    def answered(self, now: float, *, acked: bool) -> None:
        """The sender heard what became of a message."""
        self._unanswered -= 1
        if acked:
            self._acked += 1
            self._last_ack = now
        else:
            self._missing -= len(self._devices)
            self._next()

    def arrived(self, payload: bytes) -> None:
        """A device got a message that no other one has yet."""
        seq = number_after(payload, b'"seq":', 0, len(payload))
        if seq != len(self.messages) + 1:
            self.result.problem("misordered")
        self.messages.append(payload)
        self._number_of.append(
            number_after(payload, b'"client_msg_id":"' + ID_PREFIX, 0, len(payload))
        )
        self._left.append(len(self._devices))

    def delivered(self, index: int, now: float) -> None:
        """A device got message `index`."""
        self._times.record(now - self._due[self._number_of[index]])
        self._last_delivery = now
        self._missing -= 1
        self._left[index] -= 1
        if not self._left[index]:
            self._next()

    def _next(self) -> None:
        if self._closed_loop and self.pace.begin():
            self._send(perf_counter())

    def _send(self, due: float) -> None:
        n = len(self._due)
        self._due.append(due)
        self._unanswered += 1
        self._missing += len(self._devices)
        payload = b'{"type":"message.send","id":%d,"data":{"client_msg_id":"%b%012d","group_id":%d,"content":"%b"}}'
        content = b"x" * self.job.body
        self._sender.write(text_frame(payload % (n, ID_PREFIX, n, self.job.group, content)))

    def _conclude(self, first: int) -> None:
        result = self.result
        result.count("acked", self._acked)
        result.count(
            "delivered", (len(self.messages) - first) * len(self._devices) - sum(self._left[first:])
        )
        result.problem("unanswered", self._unanswered)
        result.problem(
            "lost",
            sum(self._left[first:]) + (self._acked - len(self._left[first:])) * len(self._devices),
        )
        result.problem("connections lost", sum(c.lost for c in (self._sender, *self._devices)))
        result.finished["acked"] = self._last_ack - self.pace.started
        result.finished["delivered"] = self._last_delivery - self.pace.started
        result.latencies = {"delivery": self._times.buckets}
