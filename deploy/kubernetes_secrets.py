"""`./task kubernetes-secrets | kubectl apply -f -`: the Secrets that the charts of knative/ refer to.

The passwords are those of `./task secrets`, in .secrets/, and the addresses are those of knative/servers. Whoever has
servers of his own makes the same Secrets with his own tools; docs/knative.md lists their keys.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.make_secrets import ROOT, WITHOUT_ROOT, Folder, make

S3_KEYS = ("s3_access_key", "s3_secret_key")
NATS_ROLES = {
    "edge": "edge",
    "functions": "functions",
    "timeline": "timeline",
    "migrations": "migrations",
    "bridge": "functions",  # it stands in the queue of its function
}
"""The NATS user of each Secret."""
WITH_REDIS = {"functions", "timeline"}
WITH_SQL = {"functions", "timeline", "migrations"}


def secrets(folder: Folder, namespace: str, servers: str) -> Iterator[dict[str, object]]:
    """Secrets as Kubernetes wants them. `servers`: namespace of the servers, which is in their addresses."""
    for name, user in NATS_ROLES.items():
        password = folder.secret(f"nats_{user}_password")
        content = {"nats_url": f"nats://{user}:{password}@nats.{servers}.svc:4222"}
        if name in WITH_REDIS:
            content["redis_url"] = (
                f"redis://:{folder.secret('redis_password')}@redis.{servers}.svc:6379"
            )
        if name in WITH_SQL:
            login = f"natterjack:{folder.secret('mysql_password')}"
            content["db_url"] = f"mysql+aiomysql://{login}@mysql.{servers}.svc/natterjack"
        if name == "edge":
            content["jwt_secret"] = folder.secret("jwt_secret")
        yield _secret(f"natterjack-{name}", namespace, content)
    yield _secret("natterjack-jwt", namespace, {"jwt_secret": folder.secret("jwt_secret")})
    yield _secret("natterjack-s3", namespace, {key: folder.secret(key) for key in S3_KEYS})
    files = ("nats_passwords.conf", "redis.conf", "mysql_password", "mysql_root_password", *S3_KEYS)
    yield _secret("natterjack-servers", servers, {name: folder.secret(name) for name in files})


def _secret(name: str, namespace: str, content: dict[str, str]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "natterjack"},
        },
        "type": "Opaque",
        "stringData": content,
    }


def main(arguments: list[str]) -> int:
    """Prints the Secrets as a list in JSON, which kubectl reads like YAML. Status 1 if .secrets/ cannot be written."""
    parser = argparse.ArgumentParser(prog="./task kubernetes-secrets --", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds .secrets/")
    parser.add_argument("--namespace", default="natterjack", help="of Natterjack")
    parser.add_argument("--servers", default="natterjack-servers", help="namespace of the servers")
    options = parser.parse_args(arguments)
    owner = os.geteuid() or WITHOUT_ROOT
    try:
        folder = Folder(options.root / ".secrets", owner, os.getegid() or WITHOUT_ROOT)
        make(folder, None)
    except OSError as error:
        print(f"kubernetes-secrets: {error}", file=sys.stderr)
        return 1
    items = [*secrets(folder, options.namespace, options.servers)]
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
