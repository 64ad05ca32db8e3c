"""Names of users, folded so that they compare the same in every database."""

import unicodedata

from shared.errors import BadRequest

MAX_KEY = 191
"""Longest folded name that is stored: folding can make a name several times as long."""


def fold(name: str) -> str:
    """The form in which names are compared: NFKC, without case. `Ａlice` and `ALICE` are `alice`."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def username_key(username: str) -> str:
    """The folded form of a new account's name.

    Raises: BadRequest for invisible characters, which make two different names look the same.
    """
    key = fold(username)
    if len(key) > MAX_KEY:
        raise BadRequest("username is too long", field="username")
    if not (username + key).isprintable() or any(c.isspace() for c in key):
        raise BadRequest("username has white space or invisible characters", field="username")
    return key


def nickname_key(nickname: str) -> str:
    """The folded form of a nickname, for search.

    Raises: BadRequest if nothing of it would be seen.
    """
    if not any(c.isprintable() and not c.isspace() for c in nickname):
        raise BadRequest("nickname is blank", field="nickname")
    return fold(nickname)[:MAX_KEY]
