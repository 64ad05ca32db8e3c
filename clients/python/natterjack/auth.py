"""Keeps a good access token: logs in, refreshes before it expires or when it is refused, one refresh at a time."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import msgspec

from clients.python.natterjack.api import Api
from clients.python.natterjack.backoff import Backoff
from clients.python.natterjack.errors import Transient, Unauthenticated
from schemas.auth import Login, Refresh, Tokens
from schemas.users import Me

EARLY_S = 30.0
"""Refresh this long before the token expires, so that it does not do so on its way."""


class Credentials(msgspec.Struct, frozen=True):
    """A pair of tokens with what belongs to them. `expires_at`: Unix seconds by this machine's clock."""

    access_token: str
    refresh_token: str
    expires_at: float
    user: Me

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        """From the answer to a log-in or a refresh that has just come."""
        return cls(
            tokens.access_token, tokens.refresh_token, time.time() + tokens.expires_in, tokens.user
        )


class Password(msgspec.Struct, frozen=True):
    """What to log in with when there are no tokens, or when their session is gone."""

    username: str
    password: str
    device_id: str | None = None


class Keeper:
    """The authority of one session. `keep` is given every new pair before it is used: the old one is dead by then."""

    def __init__(
        self,
        api: Api,
        *,
        credentials: Credentials | None = None,
        password: Password | None = None,
        keep: Callable[[Credentials], None] = lambda _: None,
        backoff: Backoff,
    ) -> None:
        if credentials is None and password is None:
            raise ValueError("neither tokens nor username and password")
        self._api = api
        self._credentials = credentials
        self._password = password
        self._keep = keep
        self._backoff = backoff
        self._renewal: asyncio.Task[Credentials] | None = None

    async def access_token(self) -> str:
        """One that does not expire soon. Raises: Unauthenticated if the session is over."""
        known = self._credentials
        if known is not None and time.time() < known.expires_at - EARLY_S:
            return known.access_token
        return await self.renew(known.access_token if known is not None else "")

    async def renew(self, rejected: str) -> str:
        """Another one than `rejected`. Raises: Unauthenticated if the session is over."""
        if self._credentials is not None and self._credentials.access_token != rejected:
            return self._credentials.access_token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        # A refresh token is good for one use, and a second use ends the session. So the exchange is shared by
        # all who wait, and goes on when one of them is cancelled: its answer must not get lost.
        return (await asyncio.shield(self._renewal)).access_token

    async def close(self) -> None:
        """Waits a little for a refresh under way, since its answer is the only good token."""
        if self._renewal is not None:
            await asyncio.wait([self._renewal], timeout=5)
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renew(self) -> Credentials:
        attempt = 0
        while True:
            try:
                fresh = Credentials.of(await self._ask())
            except Transient as error:
                await asyncio.sleep(self._backoff.delay_s(attempt, error.retry_after_ms))
                attempt += 1
            else:
                self._keep(fresh)
                self._credentials = fresh
                return fresh

    async def _ask(self) -> Tokens:
        if self._credentials is not None:
            try:
                return await self._api.call(Refresh(self._credentials.refresh_token), Tokens)
            except Unauthenticated:
                if self._password is None:
                    raise
        assert self._password is not None
        given = self._password
        login = Login(given.username, given.password, given.device_id, platform="desktop")
        return await self._api.call(login, Tokens)
