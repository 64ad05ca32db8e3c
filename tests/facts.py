"""Reads facts as an integrator does: with a durable consumer of the stream IM_EVT."""

import asyncio

import msgspec
import nats

from schemas.facts import MessageSent
from shared.adapters.event_stream import STREAM


async def take_facts(url: str, count: int, conversation_id: str = "") -> list[MessageSent]:
    """The first `count` facts of the stream (of one conversation, if it is named), repeats left out."""
    client = await nats.connect(url)
    facts: dict[str, MessageSent] = {}
    try:
        async with asyncio.timeout(60):
            consumer = await client.jetstream().pull_subscribe(
                "im.v1.evt.message.*", "tests", stream=STREAM
            )
            while len(facts) < count:
                try:
                    batch = await consumer.fetch(500, timeout=1)
                except TimeoutError:
                    continue
                for message in batch:
                    fact = msgspec.json.decode(message.data, type=MessageSent)
                    assert message.subject == "im.v1.evt.message.sent"
                    assert message.headers
                    assert message.headers["Nats-Msg-Id"] == fact.id
                    if conversation_id in ("", fact.data.conversation_id):
                        facts.setdefault(fact.id, fact)
                    await message.ack()
    finally:
        await client.close()
    return list(facts.values())
