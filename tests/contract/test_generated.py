"""The generated documents: valid by their own standards, complete, and never stale."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import openapi_spec_validator
import pytest

from schemas.commands import API_PREFIX, CLIENT_COMMANDS, COMMANDS, Command
from schemas.docs.examples import EXAMPLES, example
from schemas.docs.model import structs
from schemas.errors import STATUS
from schemas.events import EVENTS
from schemas.generate import FOLDER, documents, stale, write

ROOT = FOLDER.parent.parent
by_route = pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.route], ids=lambda c: c.type
)
DOCUMENTS = documents()
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def openapi() -> Any:
    return json.loads(DOCUMENTS["openapi.json"])


@pytest.fixture(scope="module")
def asyncapi() -> Any:
    return json.loads(DOCUMENTS["asyncapi.json"])


def operations(openapi: Any) -> list[Any]:
    return [op for path in openapi["paths"].values() for op in path.values()]


def resolve(document: Any, reference: str) -> Any:
    """Follows a reference inside a document; KeyError if it leads nowhere."""
    assert reference.startswith("#/"), f"{reference} leads out of the document"
    node = document
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for value in node.values() for found in references(value)]


# --- all of them


def test_the_files_in_the_tree_are_fresh() -> None:
    assert stale() == []


def test_output_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from schemas.generate import documents; "
        "print(hashlib.sha256(repr(documents()).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.endswith(".json")])
def test_every_reference_resolves(path: str) -> None:
    text = DOCUMENTS[path]
    assert text.endswith("}\n")
    document = json.loads(text)
    for reference in references(document):
        resolve(document, reference)


# --- --check


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of schemas/ that a test may spoil."""
    shutil.copytree(
        ROOT / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def generate(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "schemas.generate", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_names_the_stale_files_and_the_command(tree: Path) -> None:
    source = tree / "schemas" / "users.py"
    text = source.read_text(encoding="utf-8")
    changed = text.replace("    nickname: str\n", "    nickname: str\n    motto: str = ''\n", 1)
    assert changed != text
    source.write_text(changed, encoding="utf-8")

    result = generate(tree, "--check")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert "schemas/generated/json-schema/User.json: stale" in lines
    assert "schemas/generated/openapi.json: stale" in lines
    assert not [line for line in lines if "Head.json" in line]
    assert lines[-1] == "renew with: python -m schemas.generate"

    assert generate(tree).returncode == 0
    assert generate(tree, "--check").returncode == 0


def test_check_notices_a_changed_a_missing_and_a_left_over_file(tmp_path: Path) -> None:
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "openapi.json").write_text("{}", encoding="utf-8")
    (tmp_path / "docs.html").unlink()
    (tmp_path / "json-schema" / "Gone.json").write_text("{}", encoding="utf-8")
    assert stale(tmp_path) == [
        "docs.html: missing",
        "json-schema/Gone.json: left over",
        "openapi.json: stale",
    ]
    write(tmp_path)
    assert stale(tmp_path) == []


def test_a_wrong_argument_is_told(tree: Path) -> None:
    result = generate(tree, "--chekc")
    assert (result.returncode, result.stderr) == (
        2,
        "usage: python -m schemas.generate [--check]\n",
    )


# --- OpenAPI


def test_openapi_is_valid_by_its_official_schema(openapi: Any) -> None:
    openapi_spec_validator.validate(openapi)


def test_openapi_has_every_routed_command_once(openapi: Any) -> None:
    found = Counter(op["operationId"] for op in operations(openapi))
    assert set(found.values()) == {1}
    own = {name for name in found if not name.startswith("edge.")}
    assert own == {c.type for c in COMMANDS if c.route}
    for path in openapi["paths"].values():
        assert path.keys() <= METHODS


@by_route
def test_openapi_says_where_each_field_goes(openapi: Any, command: Command) -> None:
    assert command.route is not None
    operation = openapi["paths"][API_PREFIX + command.route.path][command.route.method.lower()]
    in_path = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
    in_query = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
    assert in_path == {
        name for name in command.request.__struct_fields__ if f"{{{name}}}" in command.route.path
    }
    fields = set(command.request.__struct_fields__)
    if command.route.method == "GET" or fields == in_path:
        assert in_path | in_query == fields
        assert "requestBody" not in operation
    else:
        assert not in_query
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        assert resolve(openapi, body["$ref"])["title"] == command.request.__name__
    for parameter in operation.get("parameters", ()):
        assert "anyOf" not in parameter["schema"], "a query cannot say null"


@by_route
def test_openapi_has_all_answers_of_a_command(openapi: Any, command: Command) -> None:
    assert command.route is not None
    operation = openapi["paths"][API_PREFIX + command.route.path][command.route.method.lower()]
    responses = operation["responses"]
    assert {str(STATUS[code]) for code in command.errors} <= responses.keys()
    assert {"400", "500", "503", "504", str(command.route.status)} <= responses.keys()
    assert ("401" in responses) or command.anonymous
    assert (operation.get("security") == []) == command.anonymous
    content = responses[str(command.route.status)]["content"]["application/json"]
    schema = content["schema"] | {"components": openapi["components"]}
    jsonschema.validate(content["example"], schema, jsonschema.Draft202012Validator)


# --- AsyncAPI


def test_asyncapi_has_every_command_once(asyncapi: Any) -> None:
    served = Counter(
        op["channel"]["$ref"]
        for name, op in asyncapi["operations"].items()
        if name.startswith("nats.")
    )
    assert served == {f"#/channels/cmd.{c.type}": 1 for c in COMMANDS}
    frames = [
        name
        for frame in asyncapi["components"]["messages"]
        if frame.startswith("command.")
        for name in asyncapi["components"]["messages"][frame]["payload"]["properties"]["type"][
            "enum"
        ]
    ]
    expected = [n for c in COMMANDS if not c.by_nobody for n in (c.type, *c.aliases)]
    assert sorted(frames) == sorted([*expected, "auth", "ping"])


def test_asyncapi_has_every_push_once(asyncapi: Any) -> None:
    pushes = [name for name in asyncapi["components"]["messages"] if name.startswith("push.")]
    assert sorted(pushes) == sorted(f"push.{e.type}" for e in EVENTS)


def test_every_channel_has_a_server_its_parameters_and_messages(asyncapi: Any) -> None:
    for name, channel in asyncapi["channels"].items():
        assert channel["messages"], name
        assert channel["servers"], name
        holes = {part.partition("}")[0] for part in channel["address"].split("{")[1:]}
        assert holes == channel.get("parameters", {}).keys(), name


def test_operations_use_messages_of_their_channel(asyncapi: Any) -> None:
    for name, operation in asyncapi["operations"].items():
        for side in (operation, operation.get("reply")):
            if side is not None:
                channel = side["channel"]["$ref"]
                assert side["messages"], name
                assert all(
                    m["$ref"].startswith(f"{channel}/messages/") for m in side["messages"]
                ), name


def test_every_message_is_used(asyncapi: Any) -> None:
    used = {
        message["$ref"]
        for channel in asyncapi["channels"].values()
        for message in channel["messages"].values()
    }
    assert used == {f"#/components/messages/{name}" for name in asyncapi["components"]["messages"]}


def test_asyncapi_examples_fit_their_payloads(asyncapi: Any) -> None:
    for name, message in asyncapi["components"]["messages"].items():
        schema = message["payload"] | {"components": asyncapi["components"]}
        for shown in message["examples"]:
            errors = list(jsonschema.Draft7Validator(schema).iter_errors(shown["payload"]))
            assert not errors, f"{name}: {errors}"


# --- JSON Schema


def test_every_struct_has_a_schema_and_an_example() -> None:
    names = {s.__name__ for s in structs()}
    assert names == {Path(path).stem for path in DOCUMENTS if path.startswith("json-schema/")}
    assert names <= {type(e).__name__ for e in EXAMPLES}
    assert max(Counter(type(e) for e in EXAMPLES).values()) == 1


@pytest.mark.parametrize("struct", structs(), ids=lambda s: s.__name__)
def test_the_schema_takes_the_example_and_refuses_rubbish(struct: type[Any]) -> None:
    schema = json.loads(DOCUMENTS[f"json-schema/{struct.__name__}.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(example(struct))
    assert not validator.is_valid([])
    for field in schema["required"]:
        assert not validator.is_valid({k: v for k, v in example(struct).items() if k != field})


# --- the page


class Page(HTMLParser):
    """Collects anchors, links and outside assets; notices tags that are not closed."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.open: list[str] = []
        self.assets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links |= {values["href"]} if "href" in values else set()
        if tag in {"script", "link", "img", "iframe"} or "src" in values:
            self.assets.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> Page:
    page = Page()
    page.feed(DOCUMENTS["docs.html"])
    page.close()
    return page


def test_the_page_is_well_formed_and_stands_alone(page: Page) -> None:
    assert page.open == []
    assert page.assets == []
    text = DOCUMENTS["docs.html"]
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_has_every_command_once_and_no_dead_link(page: Page) -> None:
    ids = Counter(page.ids)
    assert max(ids.values()) == 1
    assert {c.type for c in CLIENT_COMMANDS} <= ids.keys()
    assert {f"push-{e.type}" for e in EVENTS} <= ids.keys()
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= ids.keys()
    assert page.links - {f"#{anchor}" for anchor in inner} == {"/openapi.json", "/asyncapi.json"}
