"""`python -m deploy.sbom`: a bill of the Python packages of an environment, as CycloneDX 1.6 in JSON.

The Dockerfile runs it on what it has installed, so that each image says what is in it: /venv/sbom.cdx.json. What the
base image brings (Python, Debian's packages) is the base image's own bill. The same packages give the same bytes.
"""

import json
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

LONGEST_NAME = 100
"""Some packages put the whole text of their licence where its name belongs."""


def bill(found: Iterable[Distribution], name: str) -> dict[str, object]:
    """The bill of these packages. name: of the lock that they come from, `edge` say."""
    packages = {_purl(each): each for each in found}
    components = [_component(purl, packages[purl]) for purl in sorted(packages)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(sorted(packages)))}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": f"natterjack/{name}", "bom-ref": "root"}
        },
        "components": components,
    }


def _component(purl: str, package: Distribution) -> dict[str, object]:
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.metadata["Name"],
        "version": package.version,
        "purl": purl,
    }
    if licence := _licence(package):
        component["licenses"] = [licence]
    return component


def _purl(package: Distribution) -> str:
    name = package.metadata["Name"].lower().replace("_", "-").replace(".", "-")
    return f"pkg:pypi/{name}@{package.version}"


def _licence(package: Distribution) -> dict[str, object] | None:
    """An SPDX expression where the package gives one, otherwise the words that it uses."""

    def field(key: str) -> list[str]:
        return [str(value) for value in package.metadata.get_all(key) or []]

    if expression := field("License-Expression"):
        return {"expression": expression[0]}
    named = [text for text in field("License") if text and len(text) < LONGEST_NAME]
    classified = [c.rpartition(" :: ")[2] for c in field("Classifier") if c.startswith("License :")]
    words = classified or named
    return {"license": {"name": ", ".join(words)}} if words else None


def main(arguments: list[str]) -> int:
    """`python -m deploy.sbom NAME [SITE-PACKAGES …]`: the bill of this environment, or of these folders."""
    name, *folders = arguments
    found = distributions(path=folders) if folders else distributions()
    print(json.dumps(bill(found, name), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
