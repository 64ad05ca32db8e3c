"""The JetStream stream of facts, `IM_EVT` on `im.v1.evt.>`: the public one, whatever the log is on."""

from shared.adapters.jetstream import ensure_stream
from shared.adapters.nats import NatsBus
from shared.settings import Settings
from shared.subjects import EVENT_PREFIX

STREAM = "IM_EVT"
KEPT_S = 7 * 24 * 3600
"""How long a consumer may be away without missing a fact."""
REMEMBERED_S = 120
"""How long the server knows the ids of facts: a repeat that comes later is a second message."""


async def ensure_event_stream(settings: Settings) -> None:
    """Creates the stream if it is missing. Raises: SettingsError."""
    bus = await NatsBus.open(settings.require("nats_url"), "migrations")
    try:
        await ensure_stream(
            bus,
            STREAM,
            {
                "subjects": [f"{EVENT_PREFIX}>"],
                "retention": "limits",
                "storage": "file",
                "max_age": KEPT_S * 1_000_000_000,
                "duplicate_window": REMEMBERED_S * 1_000_000_000,
                "num_replicas": 1,
            },
        )
    finally:
        await bus.close()
