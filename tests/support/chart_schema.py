"""The part of the Helm chart's ``values.schema.json`` that is generated from the settings of the server.

``python -m tests.support.chart_schema --write`` (``make docs``) fills it in, ``--check`` (``make lint``) compares.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import OptionalPath

SCHEMA = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "pointsman" / "values.schema.json"

# Settings that the chart sets by itself, from other values; and one that no server uses.
OWN = frozenset(
    {
        "POINTSMAN_LISTEN",
        "POINTSMAN_HTTP_LISTEN",
        "POINTSMAN_XDS_LISTEN",
        "POINTSMAN_ROLES",
        "POINTSMAN_TLS_CERT_FILE",
        "POINTSMAN_TLS_KEY_FILE",
        "POINTSMAN_TLS_CLIENT_CA_FILE",
        "POINTSMAN_POLICY_FILE",
        "POINTSMAN_DATA_DIR",
    }
)
BOUNDS = {Ge: "minimum", Gt: "exclusiveMinimum", Le: "maximum"}


def definitions() -> Mapping[str, Any]:
    """Return ``settings`` and ``settingsFromSecrets`` as JSON schemas (draft 7)."""
    fields = {variable(name): field for name, field in Settings.model_fields.items()}
    ours = {name: field for name, field in fields.items() if name not in OWN}
    reference = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "key"],
        "properties": {"name": {"type": "string", "minLength": 1}, "key": {"type": "string", "minLength": 1}},
    }
    return {
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {"description": field.description} | _allowed(field)
                for name, field in ours.items()
                if not _is_secret(field)
            },
        },
        "settingsFromSecrets": {
            "type": "object",
            "propertyNames": {"enum": list(ours)},
            "additionalProperties": reference,
        },
    }


def filled(schema: str) -> str:
    """Return the text of the schema with its definitions of settings as the code says."""
    document = json.loads(schema)
    document["definitions"] |= definitions()
    return json.dumps(document, indent=2) + "\n"


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in {field.annotation, *get_args(field.annotation)}


def _allowed(field: FieldInfo) -> dict[str, object]:
    if get_origin(field.annotation) is Literal:
        return {"enum": list(get_args(field.annotation))}
    if field.annotation is bool:
        return {"enum": [True, False, "true", "false"]}
    if field.annotation in {int, float}:
        kind = "integer" if field.annotation is int else "number"
        return {"type": kind} | {
            word: getattr(item, type(item).__name__.lower())
            for item in field.metadata
            for bound, word in BOUNDS.items()
            if isinstance(item, bound)
        }
    if field.annotation in {Path, get_args(OptionalPath)[0]}:
        return {"type": "string", "pattern": "^/"}
    patterns = [pattern for item in field.metadata if (pattern := getattr(item, "pattern", None))]
    return {"type": "string", "minLength": 1} | ({"pattern": patterns[0]} if patterns else {})


def main(arguments: list[str] | None = None, path: Path = SCHEMA) -> int:
    """Fill in or compare; 1 when the schema differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.chart_schema", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="fill in the settings")
    mode.add_argument("--check", action="store_true", help="fail when the schema is not what the code says")
    options = parser.parse_args(arguments)
    text = path.read_text()
    if options.write:
        path.write_text(filled(text))
    elif text != filled(text):
        sys.stderr.write(f"{path.name} of the chart is out of date: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
