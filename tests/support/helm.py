"""Helm, as ``make tools`` builds it, on our chart; and the plain manifests that are rendered from the chart.

``python -m tests.support.helm`` (``make manifests``) writes the manifests.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.tools import BIN

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CHART = DEPLOY / "helm" / "pointsman"
MANIFESTS = DEPLOY / "kubernetes"
MONITORING = MANIFESTS / "monitoring"
XDS = MANIFESTS / "xds"
HELM_SECONDS = 60
# Helm built from its module takes the cluster for one that is years old.
KUBERNETES = "1.34.0"
# What the Prometheus operator and Grafana's sidecar need, in a directory of its own.
MONITORING_TEMPLATES = ("monitoring", "dashboards")
# A component, which the kustomization takes or not.
XDS_TEMPLATES = ("xds",)

HEADER = "# Rendered from deploy/helm/pointsman with deploy/kubernetes/values.yaml by `make manifests`: do not edit.\n"
_SOURCE = re.compile(r"# Source: pointsman/templates/(.+)\.yaml\n")
# Labels that are true of what Helm installs.
_OF_HELM = re.compile(r"^ *(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n", re.MULTILINE)


class HelmError(Exception):
    """Helm refused; the text is what it said."""


def helm(*arguments: str) -> str:
    """Run helm and return its output. Raises HelmError."""
    done = subprocess.run(
        [str(BIN / "helm"), *arguments], capture_output=True, text=True, timeout=HELM_SECONDS, check=False
    )
    if done.returncode != 0:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


def template(*arguments: str, release: str = "pointsman") -> str:
    """Render the chart. Raises HelmError where the values are refused."""
    return helm("template", release, str(CHART), "--kube-version", KUBERNETES, *arguments)


def manifests() -> Mapping[Path, str]:
    """Return the plain manifests: their paths and their texts."""
    values = ("--values", str(MANIFESTS / "values.yaml"), "--skip-tests")
    monitoring = [f"--set={name}.enabled=true" for name in ("serviceMonitor", "prometheusRule", "dashboards")]
    return (
        _split(MANIFESTS, template(*values), leave=MONITORING_TEMPLATES)
        | _split(MONITORING, template(*values, *monitoring), keep=MONITORING_TEMPLATES)
        | _split(XDS, template(*values, "--set=xds.enabled=true"), keep=XDS_TEMPLATES)
    )


def _split(directory: Path, text: str, keep: tuple[str, ...] = (), leave: tuple[str, ...] = ()) -> dict[Path, str]:
    """Return one text for each template, of those in ``keep``, if it names any, and of none in ``leave``."""
    found: dict[Path, str] = {}
    for document in re.split(r"^---\n", text, flags=re.MULTILINE):
        source = _SOURCE.search(document)
        if source and source[1] not in leave and (not keep or source[1] in keep):
            path = directory / f"{source[1]}.yaml"
            body = _OF_HELM.sub("", _SOURCE.sub("", document)).strip()
            found[path] = f"{found[path]}---\n{body}\n" if path in found else f"{HEADER}{body}\n"
    return found


def stale() -> list[Path]:
    """Return the files that are not what the chart renders, and those that it does not render any more."""
    wanted = manifests()
    differ = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    kept = {"kustomization.yaml", "values.yaml"}
    present = [path for directory in (MANIFESTS, MONITORING, XDS) for path in directory.glob("*.yaml")]
    return differ + [path for path in present if path.name not in kept and path not in wanted]


def main() -> int:
    """Write the manifests, and remove those that the chart does not render any more."""
    wanted = manifests()
    for path in stale():
        path.unlink(missing_ok=True)
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
