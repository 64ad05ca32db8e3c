"""JSON Schema 2020-12: one file per Struct, complete in itself."""

from schemas.docs.examples import example
from schemas.docs.model import Json, components, structs


def json_schemas() -> dict[str, Json]:
    """Schemas by name of the Struct; what a Struct holds stands under its `$defs`."""
    documents: dict[str, Json] = {}
    for struct in structs():
        name = struct.__name__
        parts = components([struct], "#/$defs/{name}")
        documents[name] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:natterjack:v1:{name}",
            **parts.pop(name),
            "examples": [example(struct)],
        }
        if parts:
            documents[name]["$defs"] = parts
    return documents
