"""knative/rendered as it stands: fresh, whole, valid, and as little privileged as can be. No Helm is needed."""

import json
import re
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from deploy import manifests
from deploy.kubernetes_secrets import main as print_secrets
from edge.app import DRAIN_S
from edge.socket import CLOSE_GRACE_S
from functions.__main__ import load, registry
from schemas.commands import COMMANDS, HOT
from tests.data.kubernetes.make import file_name
from tests.manifests import (
    SCHEMAS,
    Document,
    containers,
    documents,
    identity,
    pods,
    rendered,
)

PARTS = rendered()
OURS = {part: found for part, found in PARTS.items() if part != "servers"}
EXAMPLE = documents(manifests.EXAMPLE / "manifest.yaml")
EVERYTHING = [document for found in PARTS.values() for document in found] + EXAMPLE
OWN = [document for found in OURS.values() for document in found]
VALUES: dict[str, Any] = yaml.safe_load(
    (manifests.CHARTS["natterjack"] / "values.yaml").read_text()
)
FUNCTIONS: dict[str, Document] = VALUES["functions"]


def of_kind(kind: str, found: list[Document]) -> list[Document]:
    return [d for d in found if identity(d).startswith(f"{kind}/")]


def names(found: list[Document]) -> set[str]:
    return {identity(document).partition("/")[0] for document in found}


def test_they_are_fresh() -> None:
    assert manifests.main(["--check"]) == 0


# --- Which there are ------------------------------------------------------------------------


def test_every_function_has_a_row_and_a_manifest_of_its_own() -> None:
    assert {*FUNCTIONS} == {*registry()}, "knative/chart/values.yaml, functions: one row for each"
    assert {*OURS} == {*registry(), "base", "edge", "migrations"}


def test_a_function_is_hot_cold_or_a_reader_by_what_it_does() -> None:
    for name, row in FUNCTIONS.items():
        has_commands = bool(load(name).handlers)
        assert (row["kind"] == "reader") is not has_commands, name
        assert (row["kind"] == "hot") is (name in HOT), (
            "schemas.commands.HOT says whose callers wait less"
        )
    for name, found in OURS.items():
        kinds = names(found)
        match FUNCTIONS.get(name, {}).get("kind"):
            case "hot":
                assert "KnativeService" in kinds
                assert not {"SinkBinding", "Deployment", "ScaledObject"} & kinds
            case "cold":
                assert {"KnativeService", "SinkBinding", "Deployment"} <= kinds
            case "reader":
                assert {"Deployment", "ScaledObject"} <= kinds
                assert "KnativeService" not in kinds


def test_hot_ones_never_sleep_and_are_scaled_by_cpu_cold_ones_sleep() -> None:
    for service in of_kind("KnativeService", OWN):
        annotations = service["spec"]["template"]["metadata"]["annotations"]
        function = service["metadata"]["labels"]["app.kubernetes.io/component"]
        environment = {e["name"]: e.get("value") for c in containers(service) for e in c["env"]}
        minimum = int(annotations["autoscaling.knative.dev/min-scale"])
        if FUNCTIONS[function]["kind"] == "hot":
            assert annotations["autoscaling.knative.dev/class"] == "hpa.autoscaling.knative.dev"
            assert annotations["autoscaling.knative.dev/metric"] == "cpu"
            assert minimum >= 1
            assert environment["IM_HOST"] == "both"
        else:
            assert "autoscaling.knative.dev/class" not in annotations
            assert minimum == 0
            assert environment["IM_HOST"] == "http"
        visibility = service["metadata"]["labels"]["networking.knative.dev/visibility"]
        assert visibility == "cluster-local", "whoever reaches it acts as anybody"


def test_a_bridge_posts_to_its_function() -> None:
    for binding in of_kind("SinkBinding", OWN):
        function = binding["metadata"]["labels"]["app.kubernetes.io/component"]
        spec = binding["spec"]
        (bridge,) = of_kind("Deployment", OURS[function])
        (service,) = of_kind("KnativeService", OURS[function])
        assert spec["subject"]["name"] == bridge["metadata"]["name"]
        assert spec["sink"]["ref"]["name"] == service["metadata"]["name"]
        (container,) = containers(bridge)
        assert container["args"] == ["bridge", function]


def test_readers_are_scaled_on_the_lag_of_their_own_group() -> None:
    for scaled in of_kind("ScaledObject", OWN):
        function = scaled["metadata"]["labels"]["app.kubernetes.io/component"]
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["metadata"]["consumerGroup"] == function
        assert trigger["metadata"]["topic"] == FUNCTIONS[function]["topic"]
        assert scaled["spec"]["minReplicaCount"] >= 1
        assert scaled["spec"]["maxReplicaCount"] <= VALUES["log"]["partitions"]
        (deployment,) = of_kind("Deployment", OURS[function])
        assert "replicas" not in deployment["spec"], "applying it again would undo KEDA's number"


def test_each_file_can_be_applied_alone_and_all_of_them_with_kustomize() -> None:
    listed = yaml.safe_load((manifests.RENDERED / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(f"{part}.yaml" for part in OURS)
    assert listed[0] == "base.yaml"
    found = [identity(document) for document in EVERYTHING]
    assert len(found) == len({*found})
    for part, resources in OURS.items():
        for document in resources:
            assert document["metadata"]["labels"]["app.kubernetes.io/component"] == part
            if document["kind"] != "Namespace":
                assert document["metadata"]["namespace"] == "natterjack"


# --- Whether they are valid -----------------------------------------------------------------


@cache
def schema_of(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    group, _, version = api_version.rpartition("/")
    text = (SCHEMAS / file_name(kind, group, version)).read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


@pytest.mark.parametrize("document", EVERYTHING, ids=identity)
def test_it_has_the_shape_that_its_schema_asks_for(document: Document) -> None:
    schema = schema_of(document["apiVersion"], document["kind"])
    problems = [f"{e.json_path}: {e.message}" for e in schema.iter_errors(document)]
    assert not problems


def test_the_schemas_refuse_what_a_server_would_refuse() -> None:
    (service,) = of_kind("KnativeService", OURS["send"])
    schema = schema_of(service["apiVersion"], service["kind"])
    for wrong in ({"replicas": 3}, {"template": {"spec": {"containers": [{"imgae": "x"}]}}}):
        assert [*schema.iter_errors(service | {"spec": service["spec"] | wrong})], wrong


def test_knative_gets_only_fields_that_it_takes_without_feature_flags() -> None:
    refused = {
        *("affinity", "dnsConfig", "dnsPolicy", "hostAliases", "initContainers", "nodeSelector"),
        *("priorityClassName", "runtimeClassName", "schedulerName", "securityContext"),
        *("terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints"),
    }
    for service in of_kind("KnativeService", OWN):
        for _, spec in pods(service):
            assert not refused & {*spec}
            for container in spec["containers"]:
                assert not {"lifecycle"} & {*container}
                reserved = {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
                assert not reserved & {variable["name"] for variable in container["env"]}
                assert len(container["ports"]) == 1
            for volume in spec.get("volumes", []):
                assert {*volume} <= {"name", "secret", "configMap", "projected", "emptyDir"}


# --- What they may do -----------------------------------------------------------------------


@pytest.mark.parametrize("document", [d for d in EVERYTHING if [*pods(d)]], ids=identity)
def test_pods_may_do_little(document: Document) -> None:
    for metadata, spec in pods(document):
        assert "serviceAccountName" not in spec or not spec.get("automountServiceAccountToken")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {*spec}
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume]
        assert metadata["labels"]["app.kubernetes.io/part-of"].startswith("natterjack")
        whole = spec.get("securityContext", {})
        for container in spec["containers"]:
            security = whole | container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security.get("runAsUser") != 0
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            # Kafka's image writes its configuration where it stands.
            assert security["readOnlyRootFilesystem"] is (container["name"] != "kafka")
            amounts = container["resources"]
            assert amounts["requests"].keys() == amounts["limits"].keys() == {"cpu", "memory"}
            _, _, tag = container["image"].rpartition("/")[2].partition(":")
            assert tag
            assert tag != "latest"
            if document["kind"] != "Job":
                assert container["readinessProbe"]
                assert container["livenessProbe"]


@pytest.mark.parametrize("document", [d for d in OWN if [*pods(d)]], ids=identity)
def test_secrets_come_as_files_of_named_secrets(document: Document) -> None:
    for _, spec in pods(document):
        for container in spec["containers"]:
            for variable in container["env"]:
                secret = re.search("NATS_URL|REDIS_URL|DB_URL|SECRET|ACCESS_KEY", variable["name"])
                if secret:
                    assert variable["name"].endswith("_FILE")
                    assert variable["value"].startswith("/secrets/")
                assert "valueFrom" not in variable
            assert not [e for e in container.get("envFrom", []) if "secretRef" in e]


def test_files_that_variables_name_are_mounted_and_in_the_secrets_we_print(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_secrets(["--root", str(tmp_path)]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    schema = schema_of("v1", "Secret")
    assert not [error for item in items for error in schema.iter_errors(item)]
    keys = {item["metadata"]["name"]: {*item["stringData"]} for item in items}
    for document in OWN:
        for _, spec in pods(document):
            mounted: set[str] = set()
            for volume in spec.get("volumes", []):
                for source in volume.get("projected", {}).get("sources", []):
                    secret = source["secret"]
                    wanted = {item["key"] for item in secret.get("items", [])}
                    assert wanted <= keys[secret["name"]]
                    mounted |= wanted or keys[secret["name"]]
            for container in spec["containers"]:
                named = {v["value"].removeprefix("/secrets/") for v in container["env"]
                         if v["name"].endswith("_FILE")}  # fmt: skip
                assert named <= mounted, identity(document)
    for document in PARTS["servers"]:
        for _, spec in pods(document):
            for volume in spec.get("volumes", []):
                for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                    if secret := source.get("secret"):
                        wanted = {item["key"] for item in secret["items"]}
                        assert wanted <= keys[secret.get("secretName") or secret["name"]]


def selects(policy: Document, labels: dict[str, str]) -> bool:
    """Whether a policy or budget selects pods with these labels."""
    spec = policy["spec"]
    wanted = (spec.get("podSelector") or spec.get("selector"))["matchLabels"]
    return bool(wanted.items() <= labels.items())


def labels_of(document: Document, metadata: Document) -> dict[str, str]:
    """As the pods will have them: Knative adds the name of the Service."""
    labels: dict[str, str] = metadata["labels"]
    if identity(document).startswith("KnativeService/"):
        return labels | {"serving.knative.dev/service": document["metadata"]["name"]}
    return labels


@pytest.mark.parametrize("document", [d for d in OWN if [*pods(d)]], ids=identity)
def test_a_pod_reaches_only_the_servers_that_it_has_addresses_of(document: Document) -> None:
    ports = {"IM_NATS_URL_FILE": 4222, "IM_REDIS_URL_FILE": 6379, "IM_DB_URL_FILE": 3306,
             "IM_S3_ACCESS_KEY_FILE": 9000}  # fmt: skip
    part = document["metadata"]["labels"]["app.kubernetes.io/component"]
    for metadata, spec in pods(document):
        labels = labels_of(document, metadata)
        policies = [p for p in of_kind("NetworkPolicy", OURS["base"]) if selects(p, labels)]
        assert [p["spec"] for p in policies if "egress" not in p["spec"]], "denied by default"
        (own,) = [p for p in of_kind("NetworkPolicy", OURS[part]) if selects(p, labels)]
        assert own["spec"]["policyTypes"] == ["Ingress", "Egress"]
        reached = {
            port["port"]
            for rule in own["spec"]["egress"]
            for port in rule.get("ports", [])
            if port["port"] != 53
        }
        named = {variable["name"] for c in spec["containers"] for variable in c["env"]}
        expected = {port for variable, port in ports.items() if variable in named}
        assert reached - {9092} == expected
        if part == "edge" or "bridge" in document["metadata"]["name"]:
            assert reached == {4222}
        opened = {port["port"] for rule in own["spec"].get("ingress", []) for port in rule["ports"]}
        if identity(document).startswith("KnativeService/"):
            assert 8080 not in opened, "only through Knative's own proxy"
            assert all(rule["from"] for rule in own["spec"]["ingress"])
        else:
            assert opened == ({8080} if part == "edge" else set())


def test_whoever_always_runs_is_not_evicted_all_at_once() -> None:
    for part, found in OURS.items():
        for document in found:
            for metadata, _ in pods(document):
                labels = labels_of(document, metadata)
                budgets = [b for b in of_kind("PodDisruptionBudget", found) if selects(b, labels)]
                sleeps = FUNCTIONS.get(part, {}).get("kind") == "cold"
                once = document["kind"] == "Job" or (sleeps and document["kind"] == "Service")
                assert len(budgets) == (0 if once else 1), identity(document)


def test_the_edge_lets_its_clients_go_slowly() -> None:
    (edge,) = of_kind("Deployment", OURS["edge"])
    assert edge["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    ((_, spec),) = pods(edge)
    (container,) = spec["containers"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    # Answers under way, close frames, and what is still being written then.
    drains = DRAIN_S + 2 * CLOSE_GRACE_S
    assert max(command.deadline_ms for command in COMMANDS) < DRAIN_S * 1000
    assert spec["terminationGracePeriodSeconds"] > wait + drains
    shape = json.loads((manifests.CHARTS["natterjack"] / "values.schema.json").read_text())
    (least,) = re.findall(r'"drainSeconds": {[^}]*"minimum": (\d+)', json.dumps(shape))
    assert int(least) > wait + drains
    assert {c["topologyKey"] for c in spec["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    (ingress,) = of_kind("Ingress", OURS["edge"])
    ((paths),) = [rule["http"]["paths"] for rule in ingress["spec"]["rules"]]
    assert {p["path"] for p in paths} == {"/api", "/ws", "/docs", "/openapi.json", "/asyncapi.json"}


def test_nats_of_the_servers_has_the_permissions_of_one_host() -> None:
    (configuration,) = of_kind("ConfigMap", PARTS["servers"])
    text = (manifests.ROOT / "deploy" / "nats.conf").read_text()
    kept = [line.rstrip() for line in configuration["data"]["nats.conf"].splitlines()]
    assert [line for line in kept if line] == [line for line in text.splitlines() if line.strip()]


# --- The step that makes them ---------------------------------------------------------------


def test_a_change_by_hand_is_noticed_without_helm(tmp_path: Any) -> None:
    files = {"a.yaml": "kind: A\n", manifests.KUSTOMIZATION: "resources: [a.yaml]\n"}
    manifests.write(files, tmp_path)
    assert not manifests.stale(tmp_path)
    (tmp_path / "a.yaml").write_text("kind: B\n")
    assert manifests.stale(tmp_path)
    manifests.write({"b.yaml": "", **files}, tmp_path)
    manifests.write(files, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", manifests.KUSTOMIZATION]
    (tmp_path / manifests.KUSTOMIZATION).unlink()
    assert manifests.stale(tmp_path)


def test_a_resource_without_its_label_is_an_error() -> None:
    with pytest.raises(manifests.ManifestError, match="component label"):
        manifests.by_part("---\n# Source: x\nkind: ConfigMap\nmetadata:\n  name: x\n")


def test_documents_are_those_of_the_files() -> None:
    assert documents(manifests.RENDERED / "send.yaml") == PARTS["send"]
