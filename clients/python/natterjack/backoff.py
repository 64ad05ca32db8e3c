"""How long to wait before a repeat."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter, so that the clients of a restarted edge do not all come back at once.

    base_s, cap_s: upper bound of the first wait, and of every wait, in seconds.
    """

    base_s: float = 0.5
    cap_s: float = 20.0

    def delay_s(self, attempt: int, retry_after_ms: int | None = None) -> float:
        """Seconds to wait before repeat number `attempt` (0, 1, …), never less than the server asked for."""
        bound = min(self.cap_s, self.base_s * 2 ** min(attempt, 32))
        return (retry_after_ms or 0) / 1000 + random.uniform(0, bound)


BACKOFF = Backoff()
"""For a person's client: quick after a hiccup, gentle when the server stays away."""
