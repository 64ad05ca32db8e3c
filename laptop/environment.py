"""Makes or renews `.venv` from its hash-pinned lock. Called by `./task` with any bare Python: standard library only."""

import fcntl
import subprocess
import sys
import venv
from pathlib import Path


def main(root: Path, stamp: str) -> None:
    """Install the lock into `root/.venv`; `stamp` marks it as finished.

    Two starts at the same time: the second waits for the first, and then finds nothing left to do.
    """
    target = root / ".venv"
    if target.is_symlink():
        # It belongs to whatever else uses it: making it anew would empty it under running programs.
        raise OSError(
            f"it is a link to {target.resolve()}, and does not fit this tree; remove the link"
        )
    lock = root / "requirements" / "dev.txt"
    mark = target / "stamp"
    with lock.open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        finished = mark.read_text() if mark.is_file() else ""
        if finished == stamp:
            return
        print("task: setting up .venv (about a minute) …", file=sys.stderr, flush=True)
        # A finished environment of this tree is brought up to date, so that what runs from it goes on running.
        current = finished.endswith(f" {root}") and (target / "bin" / "python").exists()
        mark.unlink(missing_ok=True)
        if not current:
            venv.create(target, clear=True, symlinks=True, with_pip=True)
        install(target, lock)
        mark.write_text(stamp)


def install(target: Path, lock: Path) -> None:
    """Run pip; its output goes to a log, of which a failure shows the line that matters."""
    log = target / "install.log"
    command: list[str | Path] = [
        target / "bin" / "python",
        "-I",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
    ]
    command += ["--no-deps", "--require-hashes", "--requirement", lock]
    with log.open("w") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = (
            [line for line in lines if line.startswith("ERROR: ")] or lines or [f"status {status}"]
        )
        raise OSError(f"pip could not install {lock.name}: {errors[0]} (all of it: {log})")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except KeyboardInterrupt:
        sys.exit("task: interrupted; the next start begins anew")
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"task: cannot set up .venv: {error}")
