"""What the handlers of `profile` need, as a narrow Protocol. `store` implements it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from schemas.users import Me, User
from shared.passwords import Passwords
from shared.presence import PresenceStore
from shared.throttle import Throttle


class Changes(msgspec.Struct, frozen=True):
    """Fields of a profile to be changed."""

    nickname: str | UnsetType = UNSET
    nickname_key: str | UnsetType = UNSET
    avatar: str | UnsetType | None = UNSET


class Seen(NamedTuple):
    """A user as another sees him. private: he may also see what only friends see."""

    user: User
    private: bool


class Profiles(Protocol):
    """Profiles of live accounts. All raise Unavailable; what writes, UnknownOutcome too."""

    async def me(self, user_id: int) -> Me | None:
        """One's own."""

    async def get(self, user_id: int, asker: int) -> Seen | None:
        """Anybody's, as `asker` sees him."""

    async def search(self, start: str, after: int, limit: int, asker: int) -> Sequence[User]:
        """Those whose folded name or nickname starts so, by ascending id, greater than `after`."""

    async def update(self, user_id: int, changes: Changes) -> None:
        """Changes what is set; nothing if the account is gone."""

    async def password_hash(self, user_id: int) -> str | None:
        """Hash of the password."""

    async def delete(self, user_id: int, password_hash: str, now_ms: int) -> list[str] | None:
        """Deletes and returns the sessions that ended; None, changing nothing, if the hash is another.

        Raises: Conflict, changing nothing, while he owns a group.
        """


class Deps(msgspec.Struct, frozen=True):
    """What `profile` needs."""

    profiles: Profiles
    presence: PresenceStore
    passwords: Passwords
    throttle: Throttle
