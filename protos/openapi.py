"""Complete the OpenAPI document that protoc-gen-openapi made, and put it into the server, which serves it.

Operations that have several paths get ids that differ, and bearer credentials are declared.
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / ".cache" / "protos" / "openapi.yaml"
SERVED = ROOT / "server" / "pointsman_server" / "rpc" / "openapi.yaml"
HEADER = "# Generated from protos/ by `make protos`. Do not edit.\n"


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with unique operation ids and a security scheme."""
    taken: dict[str, int] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            name = operation["operationId"]
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                operation["operationId"] = f"{name}{taken[name]}"
    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    # A server without authentication takes calls without a credential.
    document["security"] = [{"bearer": []}, {}]
    return document


if __name__ == "__main__":
    text = yaml.safe_dump(complete(yaml.safe_load(GENERATED.read_text())), sort_keys=False, width=120)
    SERVED.write_text(HEADER + text)
