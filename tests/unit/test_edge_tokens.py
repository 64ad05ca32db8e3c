import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.auth import MAX_TOKEN, Claims, TokenVerifier
from shared.errors import Unauthenticated
from shared.settings import Settings
from tests.edge import SECRET, token

VERIFIER = TokenVerifier(SECRET)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(access_token: str, verifier: TokenVerifier = VERIFIER) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(access_token)
    return caught.value.message


def test_a_good_token() -> None:
    now = int(time.time())
    assert VERIFIER.verify(token(42, iat=now, exp=now + 5)) == Claims(42, "s1", now, now + 5)


def test_clocks_may_differ_by_a_few_seconds() -> None:
    now = int(time.time())
    VERIFIER.verify(token(exp=now - 2))
    VERIFIER.verify(token(iat=now + 3))
    assert "expired" in refused(token(exp=now - 60))
    refused(token(iat=now + 60))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None}, {"sid": None}, {"iat": None}, {"exp": None}, {"exp": "soon"}, {"exp": float("inf")},
        {"sub": "0"}, {"sub": "-1"}, {"sub": "01"}, {"sub": "1.2"}, {"sub": "*"}, {"sub": ">"},
        {"sub": "1\r\nPUB x"}, {"sub": "٣"}, {"sub": "1" * 30}, {"sub": str(2**53)}, {"sub": ""},
        {"sid": "a.b"}, {"sid": "a\r\nx: y"}, {"sid": "a\n"}, {"sid": 5}, {"sid": ""}, {"sid": "x" * 65},
        {"nbf": 9999999999},
    ],
)  # fmt: skip
def test_claims_that_could_do_harm(claims: dict[str, Any]) -> None:
    refused(token(**claims))


def test_forged_tokens() -> None:
    head, body, signature = token().split(".")
    other = part({"sub": "8", "sid": "s1", "iat": 0, "exp": 9999999999})
    for forged in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
        f"{head}.{body}",
        token(secret="another secret of thirty-two bytes"),
        token(algorithm="HS512"),
        "", ".", "..", "a.b.c", "é.é.é", "x" * (MAX_TOKEN + 1), part([]) + ".e30.", part("x") + ".e30.",
        part({"alg": ["HS256"]}) + ".e30.", part({"alg": None}) + ".e30.",
    ):  # fmt: skip
        refused(forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_alg_none(algorithm: str) -> None:
    payload = part({"sub": "7", "sid": "s1", "iat": 0, "exp": 9999999999})
    refused(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{payload}.")


class Keys:
    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = Ed25519PrivateKey.generate()
        public = jwt.algorithms.OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = dict(public) | {"kid": kid}

    def sign(self, **headers: Any) -> str:
        now = int(time.time())
        claims = {"sub": "7", "sid": "s1", "iat": now, "exp": now + 60}
        return jwt.encode(claims, self.private, "EdDSA", headers={"kid": self.kid} | headers)


def verifier_of(*keys: Keys, secret: str = "") -> TokenVerifier:
    env = {"IM_JWT_KEYS": json.dumps({"keys": [k.jwk for k in keys]})}
    return TokenVerifier.from_settings(
        Settings.load(env | ({"IM_JWT_SECRET": secret} if secret else {}))
    )


def test_eddsa_by_kid() -> None:
    old, new = Keys("old"), Keys("new")
    verifier = verifier_of(old, new)
    assert verifier.verify(old.sign()).sub == verifier.verify(new.sign()).sub == 7
    for wrong in (old.sign(kid="new"), old.sign(kid="other"), Keys("old").sign(), token()):
        refused(wrong, verifier)


def test_a_public_key_is_no_secret() -> None:
    """HS/RS confusion: signing HS256 with what everybody knows of an asymmetric key."""
    keys = Keys("k")
    verifier = verifier_of(keys, secret=SECRET)
    raw = keys.private.public_key().public_bytes_raw()
    pem = keys.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = part({"alg": "HS256", "kid": "k"})
    body = part({"sub": "7", "sid": "s1", "iat": 0, "exp": 9999999999})
    for key in (raw, pem, keys.jwk["x"].encode(), b""):
        signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
            f"{head}.{body}".encode(), key
        )
        encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        refused(f"{head}.{body}.{encoded}", verifier)
    assert verifier.verify(token()).sub == verifier.verify(keys.sign()).sub == 7


def test_other_asymmetric_algorithms_are_refused() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(time.time())
    claims = {"sub": "7", "sid": "s1", "iat": now, "exp": now + 60}
    refused(jwt.encode(claims, private, "RS256", headers={"kid": "k"}), verifier_of(Keys("k")))


def by_pyjwt(access_token: str) -> Claims | None:
    """What a verifier says that knows no quick way."""
    verifier = TokenVerifier(SECRET)
    verifier._raw_secret = b""
    try:
        return verifier.verify(access_token)
    except Unauthenticated:
        return None


def signed(header: object, payload: bytes) -> str:
    """Signed with the right secret, whatever it says."""
    head = f"{part(header)}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}"
    digest = hmac.digest(SECRET.encode(), head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


times = st.one_of(
    st.integers(-100, 100).map(lambda d: int(time.time()) + d), st.floats(), st.none()
)
claim_sets = st.fixed_dictionaries(
    {"sub": st.sampled_from(["7", "0", "a.b", 7, None]), "sid": st.sampled_from(["s1", "a.b", 5])},
    optional={"iat": times, "exp": times, "nbf": times, "aud": st.just("x"), "jti": st.integers()},
)


@given(
    st.sampled_from(
        [{"alg": "HS256", "typ": "JWT"}, {"alg": "HS256"}, {"alg": "HS256", "crit": ["x"]}]
    ),
    claim_sets.map(lambda claims: json.dumps(claims).encode()) | st.binary(max_size=30),
)
def test_the_quick_way_accepts_only_what_pyjwt_accepts(header: object, payload: bytes) -> None:
    VERIFIER.verify(token())  # from here on it knows the header
    access_token = signed(header, payload)
    quick = VERIFIER._verify_own(access_token)
    if quick is not None:
        assert quick == by_pyjwt(access_token)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    good = token()
    assert VERIFIER.verify(good) == VERIFIER._verify_own(good) == by_pyjwt(good)
    at = data.draw(st.integers(0, len(good) - 2))  # the last character has bits that say nothing
    other = data.draw(st.characters(max_codepoint=0x2FF))
    changed = good[:at] + other + good[at + 1 :]
    if changed != good:
        assert VERIFIER._verify_own(changed) is None
        refused(changed)
