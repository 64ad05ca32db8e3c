"""A bar on a terminal; nothing where nobody looks."""

import sys
from collections.abc import Callable
from time import perf_counter

_WIDTH = 24


class Progress:
    """Shows one step at a time on stderr."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def step(self, name: str, seconds: float = 0.0) -> Callable[[int], None]:
        """Begins a step that takes about `seconds` (0: nobody knows); call what it returns with the count so far."""
        started = perf_counter()

        def show(count: int) -> None:
            if not self._shown:
                return
            passed = perf_counter() - started
            filled = round(_WIDTH * min(1.0, passed / seconds)) if seconds else 0
            number = f" {count:,}" if count else ""
            bar = "#" * filled + "·" * (_WIDTH - filled)
            sys.stderr.write(f"\r\x1b[K{name:<14} {bar} {passed:5.1f} s{number}")
            sys.stderr.flush()

        show(0)
        return show

    def end(self) -> None:
        """Removes the bar."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
