"""What happens to a session that ends, whichever function ends it."""

from collections.abc import Iterable

from schemas.events import Kicked
from shared.function import Push, to_user


def kicked(user_id: int, session_ids: Iterable[str], reason: str) -> tuple[Push, ...]:
    """Pushes that tell the devices, and make the edges close their sockets."""
    return tuple(to_user(user_id, Kicked(session_id, reason)) for session_id in session_ids)
