"""Access tokens: signing. `shared.auth` verifies them, in the edge, without asking us."""

from typing import Any

import jwt

from shared.auth import EDDSA, HS256, read_jwks
from shared.settings import Settings, SettingsError

LIFETIME_S = 15 * 60
SHARED_KID = "shared"
"""`kid` of tokens signed with IM_JWT_SECRET, of which there is one."""


class TokenSigner:
    """Signs with EdDSA if there are keys (the first one), otherwise with the shared secret."""

    def __init__(self, key: Any, algorithm: str, kid: str) -> None:
        self._key = key
        self._algorithm = algorithm
        self._kid = kid

    @classmethod
    def from_settings(cls, settings: Settings) -> "TokenSigner":
        """By IM_JWT_KEYS, whose first key must be a private one, or IM_JWT_SECRET.

        Raises: SettingsError.
        """
        keys = read_jwks(settings.jwt_keys)
        if not keys:
            return cls(settings.require("jwt_secret"), HS256, SHARED_KID)
        first = keys[0]
        if "d" not in first:
            raise SettingsError(
                "IM_JWT_KEYS: the first key signs and must be a private one (with `d`)"
            )
        try:
            return cls(jwt.PyJWK(first, algorithm=EDDSA).key, EDDSA, first["kid"])
        except jwt.PyJWTError as error:
            raise SettingsError(f"IM_JWT_KEYS: {error}") from None

    def sign(self, user_id: int, session_id: str, now_ms: int) -> str:
        """A JWT for this user and session, valid from `now_ms` (Unix ms) for `LIFETIME_S`."""
        now = now_ms // 1000
        claims = {
            "sub": str(user_id),
            "sid": session_id,
            "iat": now,
            "exp": now + LIFETIME_S,
            "kid": self._kid,
        }
        return jwt.encode(claims, self._key, self._algorithm, headers={"kid": self._kid})
