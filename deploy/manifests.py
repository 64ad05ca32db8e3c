"""`./task manifests`: writes knative/rendered/ out of the Helm charts, one file for each function.

The charts are the one source. Files are committed, so that `kubectl apply` needs no Helm, and so that a change of the
charts shows what it changes in a cluster. `--check` says whether they are fresh: by a checksum of everything, so that
no Helm is needed, and where there is one by rendering again. `--part NAME` prints one part, with `--values` of its own:
so a team gets the manifest of a function that is not ours.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
KNATIVE = ROOT / "knative"
RENDERED = KNATIVE / "rendered"
KUSTOMIZATION = "kustomization.yaml"
KUBERNETES = "1.34.0"
CHARTS = {"natterjack": KNATIVE / "chart", "natterjack-servers": KNATIVE / "servers"}
"""By release, which is the namespace as well."""
APART = ("servers",)
"""Parts that `kubectl apply -k` leaves out."""
EXAMPLE = ROOT / "examples" / "translate"
"""A function that is not ours: its values.yaml and the manifest that a team would make of it."""
NOTE = "# Made by ./task manifests out of {chart}: change that.\n"
_PART = re.compile(r"^ {4}app\.kubernetes\.io/component: (\S+)$", re.MULTILINE)
_SOURCE = re.compile(r"^# Source: .*\n", re.MULTILINE)
_DIGEST = re.compile(r"^# sha256: ([0-9a-f]{64})$", re.MULTILINE)


class ManifestError(Exception):
    """The manifests cannot be made; the message is one line."""


def find_helm() -> str | None:
    """Helm of the PATH, or the one that .ci/go built."""
    built = ROOT / ".cache" / "bin" / "helm"
    return shutil.which("helm") or (str(built) if os.access(built, os.X_OK) else None)


def render(helm: str) -> dict[str, str]:
    """All files of knative/rendered: name → text.

    Raises: ManifestError with Helm's own words.
    """
    files: dict[str, str] = {}
    for release, chart in CHARTS.items():
        note = NOTE.format(chart=chart.relative_to(ROOT))
        for part, documents in by_part(_template(helm, release, chart)).items():
            files[f"{part}.yaml"] = note + _joined(documents)
    files[KUSTOMIZATION] = _kustomization(files)
    return files


def render_part(helm: str, part: str, values: list[str]) -> str:
    """The manifest of one part of Natterjack's chart. `values`: files that override the chart's values.

    Raises: ManifestError with Helm's own words, or if there is no such part.
    """
    parts = by_part(_template(helm, "natterjack", CHARTS["natterjack"], values))
    if part not in parts:
        raise ManifestError(f"no part named {part}; there are {', '.join(parts)}")
    return _joined(parts[part])


def render_example(helm: str) -> str:
    """The manifest of the example. Raises: ManifestError."""
    return render_part(helm, EXAMPLE.name, [str(EXAMPLE / "values.yaml")])


def by_part(output: str) -> dict[str, list[str]]:
    """Splits what Helm wrote by the label that says to which part each resource belongs."""
    parts: dict[str, list[str]] = defaultdict(list)
    for document in re.split(r"^---\n", output, flags=re.MULTILINE):
        text = _SOURCE.sub("", document)
        found = _PART.search(text)
        if found:
            parts[found[1]].append(text)
        elif any(line and not line.startswith("#") for line in text.splitlines()):
            raise ManifestError(f"a resource without its component label:\n{text[:200]}")
    return dict(sorted(parts.items()))


def digest(rendered: Path = RENDERED) -> str:
    """Of the charts and of what was made of them, so that a change of either shows."""
    whole = hashlib.sha256()
    for folder in (*CHARTS.values(), EXAMPLE, rendered):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if path.name != KUSTOMIZATION and (folder != EXAMPLE or path.suffix == ".yaml"):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def write(files: dict[str, str], rendered: Path = RENDERED) -> None:
    """Writes the files, and removes those of functions that are no more."""
    rendered.mkdir(exist_ok=True)
    for path in rendered.glob("*.yaml"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (rendered / name).write_text(text, encoding="utf-8")
    kustomization = rendered / KUSTOMIZATION
    kustomization.write_text(f"# sha256: {digest(rendered)}\n{files[KUSTOMIZATION]}")


def stale(rendered: Path = RENDERED) -> bool:
    """Whether the charts or the rendered files were changed since the last `write`."""
    try:
        text = (rendered / KUSTOMIZATION).read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    found = _DIGEST.search(text)
    return not found or found[1] != digest(rendered)


def _kustomization(files: dict[str, str]) -> str:
    parts = sorted(name for name in files if name.removesuffix(".yaml") not in APART)
    parts.sort(key=lambda name: name != "base.yaml")
    lines = "".join(f"  - {name}\n" for name in parts)
    return (
        NOTE.format(chart="knative/chart")
        + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
        + lines
    )


def _joined(documents: list[str]) -> str:
    return "".join(f"---\n{text.strip()}\n" for text in documents)


def _template(helm: str, release: str, chart: Path, values: Sequence[str] = ()) -> str:
    command = [helm, "template", release, str(chart), "--namespace", release]
    command += ["--kube-version", KUBERNETES, "--set", "namespace.create=true"]
    command += [f"--values={path}" for path in values]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ManifestError(done.stderr.strip())
    return done.stdout


def main(arguments: list[str]) -> int:
    """Status 1 if they are stale or cannot be made; one line says why."""
    parser = argparse.ArgumentParser(prog="./task manifests --", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    parser.add_argument("--part", metavar="NAME", help="print the manifest of one part")
    parser.add_argument("--values", action="append", default=[], metavar="FILE", help="for --part")
    options = parser.parse_args(arguments)
    helm = find_helm()
    try:
        if options.check:
            if stale() or (helm and _differs(render(helm))):
                raise ManifestError("knative/rendered is stale; ./task manifests makes it anew")
        elif helm and options.part:
            print(render_part(helm, options.part, options.values), end="")
        elif helm:
            (EXAMPLE / "manifest.yaml").write_text(render_example(helm), encoding="utf-8")
            write(render(helm))
        else:
            raise ManifestError("Helm is not found on the PATH, and .ci/go has not built it")
    except ManifestError as error:
        print(f"manifests: {error}", file=sys.stderr)
        return 1
    return 0


def _differs(files: dict[str, str]) -> bool:
    names = {path.name for path in RENDERED.glob("*.yaml")} | {*files}
    return any(not _same(RENDERED / name, files.get(name)) for name in names - {KUSTOMIZATION})


def _same(path: Path, text: str | None) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
