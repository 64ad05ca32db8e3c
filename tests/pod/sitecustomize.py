"""Python imports this first in the processes of `tests.knative`: for them all files but those in /tmp are read-only."""

import errno
import os
import sys

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate"}
)
_WRITABLE = ("/tmp/", "/dev/")


def _read_only(event: str, args: tuple[object, ...]) -> None:
    if event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES):
        path = args[0]
        if isinstance(path, str | bytes | os.PathLike):
            full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - it is about names, not about files
            if not full.startswith(_WRITABLE):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), full)


sys.addaudithook(_read_only)
