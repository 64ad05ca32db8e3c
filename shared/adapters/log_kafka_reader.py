"""Reading the log on Kafka (aiokafka): one consumer group per reader, whose members divide the partitions."""

import asyncio
import logging
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
)

from shared.adapters.kafka_fetch import keep_sessions
from shared.log import Owner, Record

log = logging.getLogger(__name__)

COMMIT_S = 1.0


def fixed_assignor(topic: str, partitions: int) -> type[RoundRobinPartitionAssignor]:
    """Divides a known number of partitions, whatever the group's leader knows of the cluster at that moment.

    aiokafka's own assignors go by the leader's metadata. Right after a broker came back these may lack the topic: then
    every member gets nothing, all are content, and nobody reads the log any more.
    """

    class FixedAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]
        name = "natterjack-fixed"

        @classmethod
        def assign(
            cls,
            cluster: ClusterMetadata,
            members: Mapping[str, ConsumerProtocolMemberMetadata],
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            del cluster
            names = sorted(members)
            return {
                name: ConsumerProtocolMemberAssignment(
                    cls.version, [(topic, list(range(i, partitions, len(names))))], b""
                )
                for i, name in enumerate(names)
            }

    return FixedAssignor


class KafkaLogReader(ConsumerRebalanceListener):  # type: ignore[misc]
    """`shared.log.LogReader` on a consumer group: partitions are divided among its members.

    A member that dies is noticed after 6 s (`session_timeout_ms`); one that closes hands over at once, which the
    others see at their next heart-beat.
    """

    def __init__(
        self, bootstrap: str, topic: str, group: str, partitions: int, owner: Owner
    ) -> None:
        self._topic = topic
        self._owner = owner
        self._closed = False
        self._to_commit: dict[int, int] = {}
        self._committed_at = 0.0
        self._ready: set[int] = set()
        """Partitions that stand where the owner wants them: aiokafka fetches before it has asked him."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            partition_assignment_strategy=(fixed_assignor(topic, partitions),),
            # An offset that the log no longer has would be a loss: stop and say so, never jump over it.
            auto_offset_reset="none",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=300,
            rebalance_timeout_ms=10_000,
            max_poll_interval_ms=600_000,
            fetch_max_wait_ms=200,
            fetch_min_bytes=1,
            max_partition_fetch_bytes=1 << 20,
        )

    async def start(self) -> None:
        """Joins the group, waiting for Kafka if need be; `owner.assigned` is called when partitions come."""
        while True:
            try:
                await self._consumer.start()
                break
            except (KafkaError, OSError) as error:
                log.warning("kafka is not reached, trying again: %s", error)
                await asyncio.sleep(1)
        keep_sessions(self._consumer)
        self._consumer.subscribe([self._topic], listener=self)

    async def read(self, most: int) -> list[Record]:
        """See `LogReader.read`."""
        if self._closed:
            return []
        try:
            fetched = await self._consumer.getmany(timeout_ms=1000, max_records=most)
        except (ConsumerStoppedError, NoOffsetForPartitionError):
            return []  # closed; or a partition that nobody has read before, and the owner's `seek` is on its way
        return [
            r for tp, records in fetched.items() if tp.partition in self._ready for r in records
        ]

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.seek`."""
        mine = self._consumer.assignment()
        for partition, offset in offsets.items():
            if (tp := TopicPartition(self._topic, partition)) in mine:
                self._consumer.seek(tp, offset)

    @property
    def lag(self) -> int:
        """See `LogReader.lag`."""
        subscription = self._consumer._subscription.subscription  # noqa: SLF001 - it knows what it fetched
        assignment = subscription.assignment if subscription else None
        if assignment is None:
            return 0
        states = (assignment.state_value(tp) for tp in assignment.tps)
        return sum(
            max(0, state.highwater - state.position)
            for state in states
            if state.highwater is not None and state.has_valid_position
        )

    async def stored(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.stored`: commits them to the group once a second, for whoever watches its lag."""
        self._to_commit.update(offsets)
        now = asyncio.get_running_loop().time()
        if self._to_commit and now - self._committed_at >= COMMIT_S:
            self._committed_at = now
            await self._commit()

    async def _commit(self) -> None:
        offsets, self._to_commit = self._to_commit, {}
        try:
            await self._consumer.commit(
                {TopicPartition(self._topic, p): o for p, o in offsets.items()}
            )
        except (CommitFailedError, IllegalStateError):
            pass  # a rebalance is under way; nothing depends on these offsets
        except KafkaError as error:
            log.warning("offsets not committed: %s", error)

    async def close(self) -> None:
        """See `LogReader.close`."""
        if self._closed:
            return
        self._closed = True
        # aiokafka does not ask the listener when it leaves by itself.
        await self.on_partitions_revoked(self._consumer.assignment())
        await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: "set[TopicPartition]") -> None:
        """Called by aiokafka before a rebalance."""
        if revoked:
            partitions = frozenset(tp.partition for tp in revoked)
            await self._owner.revoked(partitions)
            if self._to_commit:
                await self._commit()
            self._ready -= partitions

    async def on_partitions_assigned(self, assigned: "set[TopicPartition]") -> None:
        """Called by aiokafka after a rebalance, before the first fetch."""
        if assigned:
            starts = dict(await self._owner.assigned(frozenset(tp.partition for tp in assigned)))
            if new := [TopicPartition(self._topic, p) for p, start in starts.items() if not start]:
                oldest = await self._consumer.beginning_offsets(new)
                starts |= {tp.partition: offset for tp, offset in oldest.items()}
            self.seek(starts)
            self._ready.update(starts)
