"""How good a Python is for `.venv`: `./task` asks each that it finds. Standard library only, any version of Python 3.

Exit status: 0 good · 3 good, but without a redis-server wheel · 4 too old · 5 without venv · 6 good, but a plain build.
"""

import sys
import sysconfig


def is_plain() -> bool:
    """Whether it was built without profile-guided optimisation, as pyenv does unless told: all costs half as much more.

    Distributions optimise theirs, with or without configure's flag for it.
    """
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" not in flags and sys.base_prefix != "/usr"


def rate() -> int:
    """The exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the one place that older ones see
        return 4
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian has a Python without these
        import venv  # noqa: F401, PLC0415
    except ImportError:
        return 5
    if sys.version_info >= (3, 13):
        return 3
    return 6 if is_plain() else 0


if __name__ == "__main__":
    sys.exit(rate())
