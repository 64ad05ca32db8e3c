"""Texts of others on one's own terminal."""


def printable(text: str) -> str:
    """Without control characters: what others write must not steer this terminal."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text.replace("\n", " ⏎ ")
    )
