"""Objects of Kubernetes as our tests see them: validated by the schemas, and as the server that runs in their pods."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.support.tools import CACHE

ROOT = CACHE.parent
SCHEMAS = ROOT / "tests" / "deploy" / "schemas"
# The oldest that the chart takes, and the newest whose schemas are here.
VERSIONS = ("1.27", "1.37")
# What Secrets and ConfigMaps that are not ours hold.
SAMPLES = {
    "DATABASE_URL": "postgresql://pointsman:secret@db:5432/pointsman",
    "POINTSMAN_DATABASE_SESSION_URL": "postgresql://pointsman:secret@primary:5432/pointsman",
    "POINTSMAN_KAFKA_SASL_PASSWORD": "secret",
    "POINTSMAN_AUDIT_DATABASE_URL": "postgresql://pointsman:secret@audit:5432/pointsman",
    "REDIS_URL": "rediss://redis:6379/0",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
}


class Objects:
    """The objects that a chart or a kustomization makes."""

    def __init__(self, text: str) -> None:
        self.all: list[Any] = [item for item in yaml.safe_load_all(text) if item]

    def of(self, kind: str) -> list[Any]:
        """Return all objects of a kind."""
        return [item for item in self.all if item["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Any:
        """Return the one object of a kind whose name ends with ``name``."""
        (found,) = [item for item in self.of(kind) if item["metadata"]["name"].endswith(name)]
        return found

    def pods(self) -> Iterator[tuple[str, Any]]:
        """Return the component and the template of every pod."""
        for item in self.all:
            if item["kind"] in {"Deployment", "Job"}:
                yield item["metadata"]["labels"]["app.kubernetes.io/component"], item["spec"]["template"]
            elif item["kind"] == "Pod":
                yield item["metadata"]["labels"]["app.kubernetes.io/component"], item

    def pod(self, component: str) -> Any:
        """Return the spec of the one pod of a component."""
        (found,) = [template["spec"] for name, template in self.pods() if name == component]
        return found

    def environment(self, component: str) -> dict[str, str]:
        """Return the variables of the container of a component; what a Secret holds is replaced by a sample."""
        (container,) = self.pod(component)["containers"]
        return self._config_maps(container) | {
            item["name"]: item["value"] if "value" in item else SAMPLES[item["name"]] for item in container["env"]
        }

    def _config_maps(self, container: Any) -> dict[str, str]:
        made = {item["metadata"]["name"]: item["data"] for item in self.of("ConfigMap")}
        names = [source["configMapRef"]["name"] for source in container.get("envFrom", ())]
        return {name: value for each in names for name, value in made.get(each, {}).items()}


def image_environment() -> dict[str, str]:
    """Return our settings that the Dockerfile sets."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    pairs = [pair for line in text.splitlines() if line.startswith("ENV ") for pair in line.split()[1:]]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name.startswith("POINTSMAN_")}


def validate(item: Mapping[str, Any]) -> None:
    """Raise ValidationError unless an object is as its schema says: strictly, without fields that do not exist."""
    if item["apiVersion"].startswith("monitoring.coreos.com/"):
        jsonschema.validate(item, _schema(SCHEMAS / f"{item['kind']}.json"))
        return
    for version in VERSIONS:
        kubernetes_validate.validate(item, version, strict=True)


@cache
def _schema(path: Path) -> Any:
    return json.loads(path.read_text())


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether a selector chooses what has these labels."""
    return selector.items() <= labels.items()
