"""Writes the contract for those who do not read Python, from the Structs and the table of commands.

python -m schemas.generate            writes schemas/generated/
python -m schemas.generate --check    fails, naming each file, if they are stale
"""

import json
import sys
from pathlib import Path

from schemas.docs.asyncapi import asyncapi
from schemas.docs.json_schema import json_schemas
from schemas.docs.model import Json
from schemas.docs.openapi import openapi
from schemas.docs.page import page

FOLDER = Path(__file__).parent / "generated"
COMMAND = "python -m schemas.generate"


def documents() -> dict[str, str]:
    """Every generated file: path below `generated/` → content."""
    files = {"openapi.json": openapi(), "asyncapi.json": asyncapi()}
    files |= {f"json-schema/{name}.json": schema for name, schema in json_schemas().items()}
    return {path: _json(document) for path, document in files.items()} | {"docs.html": page()}


def stale(folder: Path = FOLDER) -> list[str]:
    """What differs from the Structs, one line per file: stale, missing, or left over."""
    wanted = documents()
    lines = [
        f"{path}: {'stale' if (folder / path).exists() else 'missing'}"
        for path, content in wanted.items()
        if not _same(folder / path, content)
    ]
    return sorted(lines + [f"{path}: left over" for path in _present(folder) - wanted.keys()])


def write(folder: Path = FOLDER) -> None:
    """Makes the folder hold exactly the generated files."""
    wanted = documents()
    for path in _present(folder) - wanted.keys():
        (folder / path).unlink()
    for path, content in wanted.items():
        file = folder / path
        if not _same(file, content):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode())


def _json(document: Json) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _same(file: Path, content: str) -> bool:
    return file.is_file() and file.read_bytes() == content.encode()


def _present(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def main(arguments: list[str]) -> int:
    """The command line: exit status 1 if `--check` finds a stale file, 2 for a wrong argument."""
    if arguments == ["--check"]:
        lines = stale()
        for line in lines:
            print(f"schemas/generated/{line}", file=sys.stderr)
        if lines:
            print(f"renew with: {COMMAND}", file=sys.stderr)
        return 1 if lines else 0
    if arguments:
        print(f"usage: {COMMAND} [--check]", file=sys.stderr)
        return 2
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
