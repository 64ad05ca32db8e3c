"""The body of a request, where a real client would take too long to show it."""

import asyncio
from unittest import mock

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from edge import http
from shared.errors import BadRequest


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.01)
    loop = asyncio.get_running_loop()
    body = StreamReader(mock.create_autospec(BaseProtocol), 1 << 16, loop=loop)
    body.feed_data(b"{")
    request = make_mocked_request("POST", "/", headers={"Content-Length": "50"}, payload=body)
    with pytest.raises(BadRequest, match="complete"):
        await http._body(request)
