"""`./task` on machines where something is missing, and how it hands over."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The wrapper alone, with a lock that nobody can install."""
    root = tmp_path / "a tree"
    (root / "laptop").mkdir(parents=True)
    (root / "requirements").mkdir()
    shutil.copy(ROOT / "task", root)
    for name in ("environment.py", "interpreter.py"):
        shutil.copy(ROOT / "laptop" / name, root / "laptop")
    (root / "requirements" / "dev.txt").write_text(f"nothing==1 --hash=sha256:{'0' * 64}\n")
    return root


def run(tree: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [tree / "task", *arguments],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def program(file: Path, script: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(4, "is older than Python 3.11"), (5, "has no venv module"), (127, "no Python 3.11 or newer")],
)
def test_a_python_that_does_not_do_is_one_clear_line(tree: Path, status: int, reason: str) -> None:
    python = program(tree.parent / "python", f"exit {status}")
    result = run(tree, PYTHON=python)
    assert result.returncode == 1
    assert reason in result.stderr
    assert python in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_optimised_build_goes_before_a_plain_one(tree: Path) -> None:
    programs = tree.parent / "programs"
    for name, status in (("python3", 6), ("python3.12", 4), ("python3.11", 0)):
        program(
            programs / name,
            f"case $2 in *interpreter.py) exit {status} ;; esac; echo {name} >&2; exit 1",
        )
    result = run(tree, PATH=f"{programs}:/usr/bin:/bin")
    assert result.stderr == "python3.11\n"
    result = run(tree, PYTHON=str(programs / "python3"))
    assert "python3 was built without --enable-optimizations" in result.stderr
    assert result.stderr.endswith("python3\n")


def test_pip_s_reason_is_shown_and_the_next_start_begins_anew(tree: Path) -> None:
    for _ in range(2):
        result = run(tree, PYTHON=sys.executable)
        assert result.returncode == 1
        assert "pip could not install dev.txt: ERROR: " in result.stderr
        assert "Traceback" not in result.stderr


def test_an_environment_of_another_tree_is_left_alone(tree: Path) -> None:
    others = program(tree.parent / "other" / "bin" / "python", "exit 1")
    (tree / ".venv").symlink_to(tree.parent / "other")
    result = run(tree, "dev", PYTHON=sys.executable)
    assert result.returncode == 1
    assert "cannot set up .venv: it is a link to" in result.stderr
    assert "Traceback" not in result.stderr
    assert Path(others).exists()


def test_a_warm_start_only_hands_over(tree: Path) -> None:
    task = 'echo "$@"; command -v task'
    program(tree / ".venv" / "bin" / "task", task)
    program(tree / ".venv" / "bin" / "python", "exit 1")
    lock = (tree / "requirements" / "dev.txt").read_bytes()
    checksum = subprocess.run(["cksum"], input=lock, capture_output=True, check=True).stdout
    (tree / ".venv" / "stamp").write_text(f"{checksum.decode().strip()} {tree}")
    result = run(tree, "test", "--", "-k", "a b")
    assert result.stderr == ""
    assert result.stdout == f"--dir {tree} test -- -k a b\n{tree / '.venv' / 'bin' / 'task'}\n"
    assert run(tree).stdout.startswith(f"--dir {tree} --list\n")


def test_dev_is_the_supervisor_itself(tree: Path) -> None:
    """Signals to `./task dev` have to reach it."""
    test_a_warm_start_only_hands_over(tree)
    program(tree / ".venv" / "bin" / "python", 'echo "$@" "$IM_DATA_DIR"')
    assert run(tree, "dev").stdout == f"-m laptop {tree}/.data\n"
    assert run(tree, "dev", IM_DATA_DIR="x").stdout == "-m laptop x\n"


def test_the_wrapper_is_executable() -> None:
    assert os.access(ROOT / "task", os.X_OK)
