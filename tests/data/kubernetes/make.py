"""Makes the JSON Schemas of this folder: `python tests/data/kubernetes/make.py FOLDER…`, run by hand for a new version.

Each folder holds definitions as their projects publish them: `_definitions.json` of Kubernetes (1.34, strict; the PyPI
package kubernetes-validate has it), and CustomResourceDefinitions: Knative Serving and Eventing (1.22), KEDA (2.17,
config/crd/bases), Gateway API (1.3, config/crd/standard), Strimzi (1.2). All are under the Apache licence 2.0. What
stays is the shape of the kinds that our manifests use, without descriptions; unknown fields are errors, as for a strict
API server.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
BUILT_IN = {
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.StatefulSet",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.Ingress",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
}
CUSTOM = {
    ("HTTPRoute", "v1"),
    ("Kafka", "v1"),
    ("KafkaNodePool", "v1"),
    ("ScaledObject", "v1alpha1"),
    ("Service", "v1"),
    ("SinkBinding", "v1"),
}


def built_in(definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and schemas out of Kubernetes' own definitions; each holds what it refers to."""
    for name in sorted(BUILT_IN):
        needed: dict[str, Any] = {}
        wanted = [name]
        while wanted:
            if (found := wanted.pop()) not in needed:
                needed[found] = slim(definitions[found])
                wanted += references(definitions[found])
        schema = needed.pop(name) | {"$defs": dict(sorted(needed.items()))}
        identity = definitions[name]["x-kubernetes-group-version-kind"][0]
        yield file_name(identity["kind"], identity["group"], identity["version"]), schema


def custom(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and schemas of the versions in use out of one CustomResourceDefinition."""
    spec = definition["spec"]
    for version in spec["versions"]:
        if (spec["names"]["kind"], version["name"]) in CUSTOM:
            schema = slim(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= _EVERYWHERE
            name = file_name(spec["names"]["kind"], spec["group"], version["name"])
            yield name, closed(schema)


def file_name(kind: str, group: str, version: str) -> str:
    """As kubeconform looks it up: `deployment-apps-v1.json`; of a group only the first part counts."""
    return "-".join(filter(None, (kind, group.partition(".")[0], version))).lower() + ".json"


def references(schema: Any) -> Iterator[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from references(part)


def slim(schema: Any) -> Any:
    """Without what only people and the API server read."""
    if isinstance(schema, list):
        return [slim(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: slim(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
        and not (key.startswith("x-kubernetes-") and key not in _MEANT)
    }
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = "#/$defs/" + kept["$ref"].rpartition("/")[2]
    if kept.pop("x-kubernetes-int-or-string", False):
        kept = {"type": ["integer", "string"]}
    return kept


_EVERYWHERE = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}
_MEANT = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}


def closed(schema: Any) -> Any:
    """The API server refuses or drops fields that a CRD does not name; here they are errors."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    is_open = schema.pop("x-kubernetes-preserve-unknown-fields", False)
    properties = schema.get("properties")
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(properties, dict) and not is_open:
        result.setdefault("additionalProperties", False)
    return result


def main(folders: list[Path]) -> None:
    """Writes one file per kind."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            found: list[tuple[str, dict[str, Any]]] = []
            if path.name == "_definitions.json":
                found += built_in(json.loads(path.read_text())["$defs"])
            elif path.suffix == ".yaml":
                for document in yaml.safe_load_all(path.read_text()):
                    if document and document["kind"] == "CustomResourceDefinition":
                        found += custom(document)
            for name, schema in found:
                text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
                (HERE / name).write_text(text + "\n")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
