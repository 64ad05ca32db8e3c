"""Python's cyclic garbage collector, set up for a server that makes many short-lived objects and few cycles."""

import gc

GENERATION_0 = 50_000
"""Container objects made before the youngest generation is looked at; 700 by default, which is once per batch."""


def settle() -> None:
    """Call it when everything that lives for ever has been made: no later collection walks over that again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GENERATION_0, 20, 20)
