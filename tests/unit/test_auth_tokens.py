import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from functions.auth.tokens import LIFETIME_S, TokenSigner
from shared.auth import TokenVerifier
from shared.errors import Unauthenticated
from shared.ids import now_ms
from shared.settings import Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"


def settings(**env: str) -> Settings:
    return Settings.load(env)


def jwk(kid: str, *, private: bool = True) -> dict[str, Any]:
    key = Ed25519PrivateKey.generate()
    as_dict = jwt.algorithms.OKPAlgorithm.to_jwk(key if private else key.public_key(), as_dict=True)
    return dict(as_dict) | {"kid": kid}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def check(signing: Settings, verifying: Settings) -> dict[str, Any]:
    now = now_ms()
    token = TokenSigner.from_settings(signing).sign(42, "session", now)
    claims = TokenVerifier.from_settings(verifying).verify(token)
    assert (claims.sub, claims.sid, claims.exp) == (42, "session", claims.iat + LIFETIME_S)
    header = jwt.get_unverified_header(token)
    payload = jwt.decode(token, options={"verify_signature": False})
    assert payload == {
        "sub": "42",
        "sid": "session",
        "iat": now // 1000,
        "exp": now // 1000 + 900,
        "kid": header["kid"],
    }
    return dict(header)


def test_shared_secret() -> None:
    both = settings(IM_JWT_SECRET=SECRET)
    assert check(both, both)["alg"] == "HS256"


def test_first_key_signs_and_public_parts_suffice_to_verify() -> None:
    new, old = jwk("new"), jwk("old")
    public = [{k: v for k, v in key.items() if k != "d"} for key in (old, new)]
    header = check(settings(IM_JWT_KEYS=jwks(new, old)), settings(IM_JWT_KEYS=jwks(*public)))
    assert (header["alg"], header["kid"]) == ("EdDSA", "new")


def test_keys_go_before_the_secret_and_the_secret_still_verifies() -> None:
    both = settings(IM_JWT_KEYS=jwks(jwk("k")), IM_JWT_SECRET=SECRET)
    assert check(both, both)["alg"] == "EdDSA"
    assert check(settings(IM_JWT_SECRET=SECRET), both)["alg"] == "HS256"


def test_expired() -> None:
    both = settings(IM_JWT_SECRET=SECRET)
    token = TokenSigner.from_settings(both).sign(1, "s", now_ms() - 1000 * (LIFETIME_S + 60))
    with pytest.raises(Unauthenticated, match="expired"):
        TokenVerifier.from_settings(both).verify(token)


def test_wrong_settings_name_the_variable() -> None:
    with pytest.raises(SettingsError, match="IM_JWT_SECRET"):
        TokenSigner.from_settings(settings())
    with pytest.raises(SettingsError, match="IM_JWT_KEYS: the first key signs"):
        TokenSigner.from_settings(settings(IM_JWT_KEYS=jwks(jwk("k", private=False))))
    broken = jwk("k") | {"d": "!"}
    with pytest.raises(SettingsError, match="IM_JWT_KEYS"):
        TokenSigner.from_settings(settings(IM_JWT_KEYS=jwks(broken)))
