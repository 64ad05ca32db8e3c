"""`syncs`: one user of each pair asks again and again what he has missed since 50 messages ago, as if he came back."""

from shared.ids import private_conversation
from tests.bench.loads.reads import MESSAGES_READ, Asking, Reads
from tests.bench.talk import Job
from tests.bench.wire import count_error, number_after, text_frame


class Device(Asking):
    """Asks, and checks that every answer brings what it has missed, to the last message."""

    def __init__(self, load: "Syncs", conversation_id: str) -> None:
        super().__init__()
        self._load = load
        job = load.job
        self._data = b'"positions":[{"conversation_id":"%b","after_seq":%d}]' % (
            conversation_id.encode(),
            job.seeded - job.limit,
        )
        self._due: dict[int, float] = {}
        self._n = 0

    def ask(self, due: float) -> None:
        """Sends one request."""
        self._due[self._n] = due
        self._load.waiting += 1
        self.write(
            text_frame(b'{"type":"message.sync","id":%d,"data":{%b}}' % (self._n, self._data))
        )
        self._n += 1

    def text(self, data: bytes, start: int, stop: int) -> None:
        """What was missed, or an error."""
        load = self._load
        if data.startswith(b'{"type":"ack"', start):
            due = self._due.pop(number_after(data, b'"id":', start, stop))
            load.read(self.now - due, self.now)
            messages = data.count(b'"msg_id":', start, stop)
            load.result.count(MESSAGES_READ, messages)
            if messages != load.job.limit:
                load.result.problem("wrong answers")
        elif data.startswith(b'{"type":"error"', start):
            self._due.pop(number_after(data, b'"id":', start, stop), None)
            count_error(load.result, data, start, stop)
        else:
            return
        load.waiting -= 1
        if load.closed_loop and load.pace.begin():
            self.ask(self.now)


class Syncs(Reads):
    """See `tests.bench.load.Load`."""

    latency = "sync"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        users = range(job.first, job.first + job.users, 2)
        self._readers = [(u, Device(self, private_conversation(u, u + 1))) for u in users]
