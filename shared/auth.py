"""Checks access tokens (JWT). The edge verifies alone: no call to another process, no look-up.

`functions.auth.tokens` signs what this verifies.
"""

import base64
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm

from schemas.types import MAX_NUMBER
from shared.errors import Unauthenticated
from shared.settings import Settings, SettingsError
from shared.subjects import is_token

LEEWAY_S = 5
"""Clocks of two machines may differ by this much."""
MAX_TOKEN = 4096
"""Longest token in characters, so that nobody makes us hash megabytes."""

MAX_KNOWN_HEADERS = 100

HS256 = "HS256"
EDDSA = "EdDSA"

_USER_ID = re.compile(r"[1-9][0-9]{0,15}")


class Claims(msgspec.Struct, frozen=True):
    """Whom a valid token names. sub: user id. sid: session. iat, exp: Unix seconds."""

    sub: int
    sid: str
    iat: int
    exp: int


class _OwnClaims(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly what our own signer writes."""

    sub: str
    sid: str
    iat: int
    exp: int


_decode_own = msgspec.json.Decoder(_OwnClaims).decode
_OWN_HEADER = {"alg": HS256, "typ": "JWT"}


class TokenVerifier:
    """Verifies HS256 tokens by a shared secret and EdDSA tokens by the public keys of a JWKS.

    The algorithm picks the kind of key and never the other way round, so a public key cannot pass for a secret.

    PyJWT takes 90 µs for a token, a quarter of a whole connect. So HS256 tokens that look just like our own signer's
    and are good are recognised without it, in a tenth of that; about all others it decides, bad ones included.
    """

    def __init__(self, secret: str = "", keys: dict[str, jwt.PyJWK] | None = None) -> None:
        """`secret` empty: no HS256 token is valid. `keys` by `kid`."""
        encoded = base64.urlsafe_b64encode(secret.encode()).decode()
        self._secret = jwt.PyJWK({"kty": "oct", "k": encoded}, HS256) if secret else None
        self._raw_secret = _usable(secret)
        self._own_headers: set[str] = set()
        self._keys = keys or {}
        # By a token's first segment, which is the same for all tokens of one key.
        self._known_headers: dict[str, jwt.PyJWK] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> "TokenVerifier":
        """By IM_JWT_SECRET and IM_JWT_KEYS.

        Raises: SettingsError if neither is set or the keys cannot be read.
        """
        if not settings.jwt_secret and not settings.jwt_keys:
            raise SettingsError("IM_JWT_SECRET is not set (nor IM_JWT_KEYS)")
        return cls(settings.jwt_secret, load_keys(settings.jwt_keys))

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises: Unauthenticated, which says what is wrong with it.
        """
        if not token:
            raise Unauthenticated("no access token")
        if len(token) > MAX_TOKEN:
            raise Unauthenticated("the access token is too long")
        own = self._verify_own(token)
        if own is not None:
            return own
        try:
            key = self._key_for(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                leeway=LEEWAY_S,
                options={"require": ["sub", "sid", "iat", "exp"], "verify_aud": False},
            )
            return _checked(claims)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the access token has expired") from None
        except (jwt.PyJWTError, ArithmeticError, ValueError, TypeError, RecursionError):
            raise Unauthenticated("the access token is not valid") from None

    def _verify_own(self, token: str) -> Claims | None:
        """The claims of a good token of our own signer; None: PyJWT is to decide."""
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        if header not in self._own_headers:
            return None
        try:
            digest = hmac.digest(self._raw_secret, signed.encode("ascii"), "sha256")
            expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
            if not hmac.compare_digest(expected, signature.encode("ascii")):
                return None
            claims = _decode_own(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            now = time.time()
            if claims.exp <= now - LEEWAY_S or claims.iat > now + LEEWAY_S:
                return None
            return _checked(msgspec.structs.asdict(claims))
        except (ValueError, msgspec.MsgspecError):
            return None

    def _key_for(self, token: str) -> jwt.PyJWK:
        segment = token.partition(".")[0]
        key = self._known_headers.get(segment)
        if key is None:
            header = jwt.get_unverified_header(token)
            if header.get("alg") == HS256:
                key = self._secret
            elif header.get("alg") == EDDSA:
                key = self._keys.get(str(header.get("kid")))
            if key is None:
                raise ValueError("no key for this algorithm and kid")
            if len(self._known_headers) >= MAX_KNOWN_HEADERS:
                self._known_headers.clear()  # somebody invents headers
                self._own_headers.clear()
            if self._raw_secret and header == _OWN_HEADER:
                self._own_headers.add(segment)
            self._known_headers[segment] = key
        return key


def _usable(secret: str) -> bytes:
    """The secret as PyJWT would use it; empty if it would refuse it (a public key, say)."""
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        return b""


def _checked(claims: dict[str, Any]) -> Claims:
    """Sessions and users become parts of subjects and headers: only plain tokens and numbers pass."""
    sub, sid = claims["sub"], claims["sid"]
    if not (isinstance(sid, str) and is_token(sid)):
        raise ValueError("sid is no token")
    if not _USER_ID.fullmatch(sub) or int(sub) > MAX_NUMBER:
        raise ValueError("sub is no user id")
    return Claims(int(sub), sid, int(claims["iat"]), int(claims["exp"]))


def read_jwks(text: str) -> list[dict[str, Any]]:
    """The Ed25519 keys of IM_JWT_KEYS, which is a JWKS as JSON or the path of a file that holds one.

    Raises: SettingsError.
    """
    if not text:
        return []
    try:
        source = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        entries = json.loads(source)["keys"]
        if not entries or any(e["crv"] != "Ed25519" or not e["kid"] for e in entries):
            raise ValueError("only Ed25519 keys with a kid are usable")
    except OSError as error:
        raise SettingsError(f"IM_JWT_KEYS: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        # Neither the keys nor where parsing stopped are repeated: the text holds private keys.
        reason = str(error) if type(error) is ValueError else "not a JWKS of Ed25519 keys"
        raise SettingsError(f"IM_JWT_KEYS: {reason}") from None
    return list(entries)


def load_keys(text: str) -> dict[str, jwt.PyJWK]:
    """Public keys of IM_JWT_KEYS by `kid`.

    Raises: SettingsError.
    """
    try:
        return {
            entry["kid"]: jwt.PyJWK({k: v for k, v in entry.items() if k != "d"}, algorithm=EDDSA)
            for entry in read_jwks(text)
        }
    except (jwt.PyJWTError, ValueError):
        raise SettingsError("IM_JWT_KEYS: holds a key that is no valid Ed25519 key") from None
