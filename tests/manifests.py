"""The rendered manifests in tests: documents, containers, and the programs that check them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests import RENDERED, ROOT
from tests.servers import PARTICIPANTS, TOOK_PART, await_builds

SCHEMAS = ROOT / "tests" / "data" / "kubernetes"
Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """All resources of one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def rendered() -> dict[str, list[Document]]:
    """Resources of knative/rendered by part: a function's name, edge, base, migrations, servers."""
    paths = sorted(RENDERED.glob("*.yaml"))
    return {path.stem: documents(path) for path in paths if path.stem != "kustomization"}


def identity(document: Document) -> str:
    """For messages and look-ups: `Deployment/natterjack/edge`."""
    metadata = document["metadata"]
    group = document["apiVersion"].partition("/")[0].partition(".")[0]
    kind = document["kind"] if group != "serving" else "KnativeService"
    return f"{kind}/{metadata.get('namespace', '')}/{metadata['name']}"


def pods(document: Document) -> Iterator[tuple[Document, Document]]:
    """(metadata, spec) of the pods that a resource makes."""
    template = document.get("spec", {}).get("template")
    if isinstance(template, dict) and "containers" in template.get("spec", {}):
        yield template["metadata"], template["spec"]


def containers(document: Document) -> Iterator[Document]:
    """All containers of a resource."""
    for _, spec in pods(document):
        yield from spec["containers"]
        yield from spec.get("initContainers", [])


def program(name: str) -> str:
    """Path of a program that .ci/run installs; skips the test where it is missing, in CI fails it."""
    await_builds()
    built = ROOT / ".cache" / "bin" / name
    found = shutil.which(name) or (str(built) if os.access(built, os.X_OK) else None)
    if found is None:
        PARTICIPANTS[name] = f"MISSING: {name} is not found; .ci/go builds it"
        if os.environ.get("CI") == "true":
            pytest.fail(PARTICIPANTS[name])
        pytest.skip(PARTICIPANTS[name])
    PARTICIPANTS[name] = TOOK_PART
    return found


def run(*command: str) -> str:
    """Runs a program; returns its output. Fails the test if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{Path(command[0]).name}: {done.stdout}{done.stderr}"
    return done.stdout
