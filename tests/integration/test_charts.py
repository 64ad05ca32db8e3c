"""The charts, by Helm, kubeconform and Knative themselves: linted, rendered with other values, wrong ones refused."""

import subprocess
from pathlib import Path

import pytest
import yaml

from deploy import manifests
from tests.manifests import SCHEMAS, Document, documents, identity, program, run

CHART = manifests.CHARTS["natterjack"]
SERVERS = manifests.CHARTS["natterjack-servers"]
SMALL = manifests.KNATIVE / "small.yaml"


def template(chart: Path, *arguments: str) -> str:
    common = ("--namespace", "natterjack", "--kube-version", manifests.KUBERNETES)
    return run(program("helm"), "template", "release", str(chart), *common, *arguments)


def parsed(output: str) -> dict[str, Document]:
    return {identity(d): d for d in yaml.safe_load_all(output) if d}


def conform(path: Path) -> None:
    """Fails the test if kubeconform refuses something."""
    location = f"{SCHEMAS}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    ignored = ("-ignore-filename-pattern", "kustomization.yaml")
    run(program("kubeconform"), "-strict", *ignored, "-schema-location", location, str(path))


def test_they_are_rendered_anew_and_nothing_changed() -> None:
    files = manifests.render(program("helm"))
    on_disk = {path.name: path.read_text() for path in manifests.RENDERED.glob("*.yaml")}
    del files[manifests.KUSTOMIZATION], on_disk[manifests.KUSTOMIZATION]
    assert files == on_disk


def test_the_manifest_of_the_example_is_what_its_values_make() -> None:
    part = manifests.render_example(program("helm"))
    assert part == (manifests.EXAMPLE / "manifest.yaml").read_text()


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(manifests.ManifestError, match="no part named translate; there are auth, "):
        manifests.render_part(program("helm"), "translate", [])


def test_knative_itself_admits_every_service_and_binding() -> None:
    for path in (*manifests.RENDERED.glob("*.yaml"), manifests.EXAMPLE / "manifest.yaml"):
        wanted = [d for d in documents(path) if d["apiVersion"].split(".")[1:2] == ["knative"]]
        said = run(program("knative-admission"), str(path))
        assert said == f"{len(wanted)} checked, 0 refused\n"


def test_knative_refuses_what_its_schema_lets_pass(tmp_path: Path) -> None:
    text = (manifests.RENDERED / "send.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("      timeoutSeconds: 60\n", "      timeoutSeconds: 6000\n"))
    done = subprocess.run(
        [program("knative-admission"), str(wrong)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "spec.template.spec.timeoutSeconds" in done.stdout


@pytest.mark.parametrize("chart", [CHART, SERVERS], ids=["natterjack", "servers"])
def test_helm_finds_nothing_wrong(chart: Path) -> None:
    run(program("helm"), "lint", "--strict", "--kube-version", manifests.KUBERNETES, str(chart))


def test_kubeconform_finds_nothing_wrong() -> None:
    conform(manifests.RENDERED)


@pytest.mark.parametrize(
    ("chart", "arguments"),
    [
        (CHART, ["--values", str(SMALL)]),
        (CHART, ["--set", "edge.expose.how=gateway,edge.expose.gateway.name=public"]),
        (CHART, ["--set", "edge.expose.tlsSecret=tls,edge.expose.className=nginx"]),
        (CHART, ["--set", "edge.expose.how=none,networkPolicies.enabled=false"]),
        (CHART, ["--set", "settings.otlpEndpoint=http://jaeger:4318,images.pullSecrets={pull}"]),
        (CHART, ["--set", "log.url=jetstream://,migrations.enabled=false"]),
        (CHART, ["--set", "functions.web_hooks.kind=reader,functions.web_hooks.topic=im.events"]),
        (CHART, ["--set", "functions.translate.kind=cold,functions.translate.facts={message.sent}"]),
        (SERVERS, ["--set", "kafka.how=strimzi,storageClassName=fast"]),
        (SERVERS, ["--set", "kafka.how=none"]),
    ],
)  # fmt: skip
def test_other_values_make_valid_manifests_too(
    chart: Path, arguments: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(template(chart, *arguments))
    conform(path)


def test_a_row_may_say_otherwise_than_its_kind() -> None:
    found = parsed(
        template(
            CHART, "--set", "functions.send.scale.max=50,functions.send.resources.limits.memory=1Gi"
        )
    )
    template_of = found["KnativeService/natterjack/send"]["spec"]["template"]
    assert template_of["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] == "50"
    assert template_of["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "2"
    (container,) = template_of["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    other = found["KnativeService/natterjack/history"]["spec"]["template"]
    assert other["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] == "20"


def test_whoever_talks_to_s3_has_its_keys() -> None:
    found = parsed(template(CHART, "--set", "functions.send.servers={nats,s3}"))
    spec = found["KnativeService/natterjack/send"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    named = {variable["name"] for variable in container["env"]}
    assert {"IM_NATS_URL_FILE", "IM_S3_ACCESS_KEY_FILE", "IM_S3_SECRET_KEY_FILE"} <= named
    assert "IM_DB_URL_FILE" not in named
    sources = spec["volumes"][1]["projected"]["sources"]
    assert [s["secret"]["name"] for s in sources] == ["natterjack-functions", "natterjack-s3"]


def test_names_with_underscores_become_names_of_kubernetes() -> None:
    row = "functions.web_hooks.kind=reader,functions.web_hooks.topic=im.events"
    found = parsed(template(CHART, "--set", row))
    (container,) = found["Deployment/natterjack/web-hooks"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == "natterjack/web_hooks:0.1.0"
    trigger = found["ScaledObject/natterjack/web-hooks"]["spec"]["triggers"][0]["metadata"]
    assert trigger["consumerGroup"] == "web_hooks"


def test_on_jetstream_a_reader_is_alone() -> None:
    found = parsed(template(CHART, "--set", "log.url=jetstream://"))
    assert found["Deployment/natterjack/timeline"]["spec"]["replicas"] == 1
    assert not [name for name in found if name.startswith("ScaledObject/")]


def test_a_change_of_the_settings_makes_new_pods() -> None:
    def annotations(*arguments: str) -> set[str]:
        found = parsed(template(CHART, *arguments))
        templates = [
            d["spec"]["template"]["metadata"]
            for d in found.values()
            if "template" in d.get("spec", {})
        ]
        return {t["annotations"]["natterjack/settings"] for t in templates if "annotations" in t}

    before, after = annotations(), annotations("--set", "settings.registration=closed")
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("images.tag=latest", "/images/tag"),
        ("functions.send.scale.min=0", "/functions/send"),
        ("functions.send.knid=hot", "/functions/send"),
        ("functions.send.kind=warm", "/functions/send/kind"),
        ("functions.timeline.topic=im.dead", "/functions/timeline/topic"),
        ("log.url=kafka://user:secret@kafka:9092", "/log/url"),
        ("settings.registration=maybe", "/settings/registration"),
        ("edge.drainSeconds=5", "/edge/drainSeconds"),
        ("secret.edge=x", "'secret' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_and_named(value: str, named: str) -> None:
    done = subprocess.run(
        [program("helm"), "template", "release", str(CHART), "--kube-version", manifests.KUBERNETES,
         "--set", value],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert named in done.stderr
