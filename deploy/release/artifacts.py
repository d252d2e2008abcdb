"""Publish the images and the chart to a registry, sign them, and verify what is there. Standard library alone.

``python3 deploy/release/artifacts.py ACTION``, where ACTION is image, verify-image, chart or verify-chart. It takes
TAG (v1.2.3), REGISTRY (ghcr.io/OWNER) and GITHUB_REPOSITORY (OWNER/NAME), whose workflow signs, from the environment,
and TRANSPORT, which chooses the image. Calls docker with buildx, cosign and helm.

The signature is Sigstore's, without a key: it says that the release workflow of this repository ran on this tag. The
signed index of an image lists the SBOM and the provenance that BuildKit made, so the signature covers them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("linux/amd64", "linux/arm64")
ISSUER = "https://token.actions.githubusercontent.com"
# What an SBOM of ours cannot lack: it was read from the file system of the image.
IN_EVERY_SBOM = ("pointsman-server", "grpcio", "psycopg")


class ReleaseError(Exception):
    """What is published is not what we released."""


def run(*command: str, **options: Any) -> str:
    """Run a program and return its output; what it says besides goes to ours. Raises CalledProcessError."""
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options)
    return str(done.stdout)


@dataclass(frozen=True, slots=True)
class Release:
    """What is released, and where to."""

    tag: str
    registry: str
    repository: str
    transport: str

    @classmethod
    def from_environment(cls) -> "Release":
        """Read the environment of a workflow. Raises ReleaseError where something is missing."""
        names = ("TAG", "REGISTRY", "GITHUB_REPOSITORY")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise ReleaseError(f"set {', '.join(missing)}")
        tag, registry, repository = (os.environ[name] for name in names)
        # Names in a registry have no capitals; owners may.
        return cls(tag, registry.lower(), repository, os.environ.get("TRANSPORT", "envoy"))

    @property
    def version(self) -> str:
        """The version without the v of its tag."""
        return self.tag.removeprefix("v")

    @property
    def image(self) -> str:
        """The reference of the image by its version."""
        suffix = "" if self.transport == "envoy" else f"-{self.transport}"
        return f"{self.registry}/pointsman-server:{self.version}{suffix}"

    @property
    def chart(self) -> str:
        """The reference of the chart by its version."""
        return f"{self.registry}/charts/pointsman:{self.version}"

    def sign(self, reference: str, digest: str) -> None:
        """Sign what a digest names, and what that lists. Raises CalledProcessError."""
        run("cosign", "sign", "--yes", "--recursive", f"{reference.rpartition(':')[0]}@{digest}")

    def verify(self, reference: str) -> None:
        """Verify that the release workflow of the repository signed it, on this tag. Raises CalledProcessError."""
        workflow = f"https://github.com/{self.repository}/.github/workflows/release.yml@refs/tags/{self.tag}"
        issuer = ("--certificate-oidc-issuer", ISSUER)
        run("cosign", "verify", "--certificate-identity", workflow, *issuer, reference)


def publish_image(release: Release) -> None:
    """Build the image for every platform from what is committed, with SBOM and provenance, push and sign it."""
    with tempfile.TemporaryDirectory() as directory:
        context, written = Path(directory, "context"), Path(directory, "metadata.json")
        context.mkdir()
        revision = run("git", "rev-parse", "HEAD", cwd=ROOT).strip()
        archive = Path(directory, "archive.tar")
        run("git", "archive", "--output", str(archive), "HEAD", cwd=ROOT)
        run("tar", "-xf", str(archive), "-C", str(context))
        settings = {"TRANSPORT": release.transport, "VERSION": release.version, "REVISION": revision}
        arguments = [f"--build-arg={name}={value}" for name, value in settings.items()]
        run(
            *("docker", "buildx", "build", f"--platform={','.join(PLATFORMS)}", "--sbom=true", "--provenance=mode=max"),
            *(f"--metadata-file={written}", "--push", f"--tag={release.image}", *arguments, str(context)),
        )
        release.sign(release.image, json.loads(written.read_text())["containerimage.digest"])


def verify_image(release: Release) -> None:
    """Verify the signature of an image, and that each platform has an SBOM and provenance. Raises ReleaseError."""
    release.verify(release.image)
    sboms, provenances = (
        json.loads(
            run("docker", "buildx", "imagetools", "inspect", release.image, "--format", f"{{{{ json .{name} }}}}")
        )
        for name in ("SBOM", "Provenance")
    )
    for platform in PLATFORMS:
        packages = {each["name"] for each in (sboms or {}).get(platform, {}).get("SPDX", {}).get("packages", ())}
        if lacking := [name for name in IN_EVERY_SBOM if name not in packages]:
            raise ReleaseError(f"the SBOM of {release.image} for {platform} lacks {', '.join(lacking)}")
        if not (provenances or {}).get(platform, {}).get("SLSA"):
            raise ReleaseError(f"{release.image} for {platform} has no provenance")


def publish_chart(release: Release) -> None:
    """Push the chart that `make chart` packaged, and sign it. Raises ReleaseError."""
    packaged = ROOT / ".cache/chart" / f"pointsman-{release.version}.tgz"
    helm = os.environ.get("HELM", "helm")
    # The login of docker counts for helm.
    login = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"), "config.json")
    target = f"oci://{release.registry}/charts"
    said = run(helm, "push", str(packaged), target, "--registry-config", str(login), stderr=subprocess.STDOUT)
    pushed = re.search(r"^Digest: (sha256:[0-9a-f]{64})$", said, re.MULTILINE)
    if pushed is None:
        raise ReleaseError(f"helm names no digest: {said}")
    release.sign(release.chart, pushed[1])


ACTIONS = {
    "image": publish_image,
    "verify-image": verify_image,
    "chart": publish_chart,
    "verify-chart": lambda release: release.verify(release.chart),
}


def main() -> None:
    """Do one thing; end with 1 where it fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=tuple(ACTIONS))
    action = parser.parse_args().action
    try:
        ACTIONS[action](Release.from_environment())
    except (ReleaseError, subprocess.CalledProcessError) as error:
        sys.exit(f"{action}: {error}")


if __name__ == "__main__":
    main()
