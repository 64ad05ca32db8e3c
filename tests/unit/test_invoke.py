"""What a client's developer reads who got a command wrong."""

from typing import Any

import pytest

from shared.errors import BadRequest
from shared.function import on
from shared.invoke import _decode


@pytest.mark.parametrize(
    ("name", "data", "field", "says"),
    [
        ("message.recall", b"{}", "msg_id", "Object missing required field `msg_id`"),
        ("message.recall", b'{"msg_id":"x"}', "msg_id", "Expected `str` matching regex '^[0-9]{1,20}$'"),
        (
            "message.sync", b'{"positions":[{"after_seq":4}]}', "positions[0].conversation_id",
            "Object missing required field `conversation_id`",
        ),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(name: str, data: bytes, field: str, says: str) -> None:
    async def nothing(_cmd: Any, _ctx: Any) -> Any:
        return None

    with pytest.raises(BadRequest) as caught:
        _decode(on(name, nothing), data)
    assert (caught.value.field, caught.value.message) == (field, says)
