"""A sampled record carries its `traceparent` as a header too, for readers that do not know our JSON; others none."""

import asyncio
import base64

import msgspec
from aiokafka import AIOKafkaConsumer

from shared import subjects
from shared.adapters.log_jetstream import JetStreamWriter, ensure_stream, stream_of
from shared.adapters.log_kafka import KafkaLogWriter, bootstrap_of, ensure_topics
from shared.adapters.nats import NatsBus
from shared.bus import Inbox
from tests.servers import KafkaServer, NatsServer

TOPIC = "im.traced"
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


async def test_on_kafka(kafka_server: KafkaServer) -> None:
    brokers = bootstrap_of(kafka_server.url)
    await ensure_topics(brokers, {TOPIC: 1})
    writer = KafkaLogWriter(brokers, 1)
    await asyncio.gather(
        writer.append(TOPIC, "p_1_2", b"1"), writer.append(TOPIC, "p_1_2", b"2", trace=TRACE)
    )
    await writer.close()
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            records = [await consumer.getone() for _ in range(2)]
    finally:
        await consumer.stop()
    assert [r.headers for r in records] == [(), (("traceparent", TRACE.encode()),)]


async def test_on_jetstream(nats_server: NatsServer) -> None:
    bus = await NatsBus.open(nats_server.url, "test")
    await ensure_stream(bus, TOPIC, 1)
    writer, inbox = JetStreamWriter(bus, 1), Inbox(bus, subjects.FUNCTION_INBOX)
    await writer.append(TOPIC, "p_1_2", b"1")
    await writer.append(TOPIC, "p_1_2", b"2", trace=TRACE)
    headers = []
    for number in (1, 2):
        ask = msgspec.json.encode({"seq": number})
        subject = f"$JS.API.STREAM.MSG.GET.{stream_of(TOPIC)}"
        message = msgspec.json.decode((await inbox.request(subject, ask, 10))[0])["message"]
        headers.append(base64.b64decode(message.get("hdrs", "")))
    assert headers == [b"", f"NATS/1.0\r\ntraceparent: {TRACE}\r\n\r\n".encode()]
    writer.close()
    inbox.close()
    await bus.close()
