"""The programs of a release: the notes, and the calls that publish, sign and verify."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NAMED = ("pyproject.toml", "clients/python/pyproject.toml", "Dockerfile", "deploy/helm/pointsman/Chart.yaml")
DIGEST = f"sha256:{'5' * 64}"
# Stands for docker, cosign and helm: writes down how it was called, and answers as the real one does.
STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
name = Path(sys.argv[0]).name
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
for argument in sys.argv[1:]:
    if argument.startswith("--metadata-file="):
        Path(argument.partition("=")[2]).write_text(json.dumps({{"containerimage.digest": "{digest}"}}))
answers = json.loads(os.environ["ANSWERS"])
print(next((text for words, text in answers.items() if words in " ".join(sys.argv)), ""))
sys.exit(name == os.environ.get("FAILS"))
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / f"deploy/release/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


notes = load("notes")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What names the version, in a directory of its own, with a dated changelog."""
    for name in NAMED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [{version()}] - 2026-12-01\n\n### Added\n\n- A thing.\n\n## [0.0.1] - 2026-01-01\n\n- Old\n"
    )
    return tmp_path


def version() -> str:
    found: str = load("notes").Releasable(ROOT, "v0")._named()[0][1]
    return found


class TestNotes:
    def test_a_version_that_every_file_names_can_be_released(self, repository: Path) -> None:
        assert notes.Releasable(repository, f"v{version()}").problems() == []

    @pytest.mark.parametrize("name", NAMED)
    def test_a_file_with_another_version_is_named(self, repository: Path, name: str) -> None:
        text = (repository / name).read_text()
        assert version() in text
        (repository / name).write_text(text.replace(version(), "9.9.9"))
        problems = notes.Releasable(repository, f"v{version()}").problems()
        assert problems
        assert all(name in problem and "says 9.9.9" in problem for problem in problems)

    def test_a_changelog_without_the_version_or_its_date_is_named(self, repository: Path) -> None:
        assert "CHANGELOG.md has no heading [9.9.9]" in notes.Releasable(repository, "v9.9.9").problems()
        changes = repository / "CHANGELOG.md"
        changes.write_text(changes.read_text().replace("2026-12-01", "Unreleased"))
        assert notes.Releasable(repository, f"v{version()}").problems() == [
            f"CHANGELOG.md has no date for {version()}: Unreleased"
        ]

    def test_the_notes_are_the_part_of_the_version(self, repository: Path) -> None:
        assert notes.Releasable(repository, f"v{version()}").notes() == "### Added\n\n- A thing.\n"
        with pytest.raises(LookupError):
            notes.Releasable(repository, "v9.9.9").notes()

    def test_the_repository_differs_from_a_release_by_its_date_at_most(self) -> None:
        problems = notes.Releasable(ROOT, f"v{version()}").problems()
        assert all("has no date" in problem for problem in problems)

    def test_printed_notes_say_how_to_verify(self) -> None:
        command = [sys.executable, ROOT / "deploy/release/notes.py", "print", f"v{version()}"]
        environment = os.environ | {"GITHUB_REPOSITORY": "Some/Where", "REGISTRY": "ghcr.io/Some"}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert f"https://github.com/Some/Where/.github/workflows/release.yml@refs/tags/v{version()}" in printed
        assert f"ghcr.io/some/pointsman-server:{version()}" in printed


class TestArtifacts:
    @pytest.fixture(autouse=True)
    def programs(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.calls = tmp_path / "calls"
        for name in ("docker", "cosign", "helm"):
            program = tmp_path / name
            program.write_text(STAND_IN.format(python=sys.executable, digest=DIGEST))
            program.chmod(0o755)

    def run(self, action: str, answers: dict[str, str] | None = None, **environment: str) -> tuple[int, str]:
        settings = {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "ANSWERS": json.dumps(answers or {}),
            "TAG": "v1.2.3",
            "REGISTRY": "ghcr.io/Some",
            "GITHUB_REPOSITORY": "Some/Where",
        }
        command = [sys.executable, ROOT / "deploy/release/artifacts.py", action]
        done = subprocess.run(
            command, env=os.environ | settings | environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    @pytest.mark.parametrize(("transport", "tag"), [("envoy", "1.2.3"), ("grpcio", "1.2.3-grpcio")])
    def test_an_image_is_pushed_for_every_platform_with_sbom_and_provenance_and_its_digest_is_signed(
        self, transport: str, tag: str
    ) -> None:
        assert self.run("image", TRANSPORT=transport) == (0, "")
        build, sign = self.called()
        assert build[:3] == ["docker", "buildx", "build"]
        assert {
            "--platform=linux/amd64,linux/arm64",
            "--sbom=true",
            "--provenance=mode=max",
            "--push",
            f"--tag=ghcr.io/some/pointsman-server:{tag}",
            f"--build-arg=TRANSPORT={transport}",
            "--build-arg=VERSION=1.2.3",
        } <= set(build)
        assert sign == ["cosign", "sign", "--yes", "--recursive", f"ghcr.io/some/pointsman-server@{DIGEST}"]

    def attested(self, **changes: Any) -> dict[str, str]:
        """What buildx says of an image with everything; ``changes`` replace what it says of one platform."""
        packages = [{"name": name} for name in ("pointsman-server", "grpcio", "psycopg", "libc6")]
        sbom: dict[str, Any] = {name: {"SPDX": {"packages": packages}} for name in ("linux/amd64", "linux/arm64")}
        provenance: dict[str, Any] = {name: {"SLSA": {"builder": {}}} for name in sbom}
        return {
            "json .SBOM": json.dumps(sbom | changes.get("sbom", {})),
            "json .Provenance": json.dumps(provenance | changes.get("provenance", {})),
        }

    def test_an_image_is_verified_by_who_signed_it_and_by_what_it_says_of_itself(self) -> None:
        assert self.run("verify-image", self.attested()) == (0, "")
        assert self.called()[0] == [
            *("cosign", "verify", "--certificate-identity"),
            "https://github.com/Some/Where/.github/workflows/release.yml@refs/tags/v1.2.3",
            *("--certificate-oidc-issuer", "https://token.actions.githubusercontent.com"),
            "ghcr.io/some/pointsman-server:1.2.3",
        ]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"sbom": {"linux/arm64": {"SPDX": {"packages": [{"name": "grpcio"}]}}}},
                "lacks pointsman-server, psycopg",
            ),
            ({"sbom": {"linux/arm64": {}}}, "the SBOM of"),
            ({"provenance": {"linux/amd64": {}}}, "for linux/amd64 has no provenance"),
        ],
    )
    def test_an_image_that_says_too_little_of_itself_is_refused(self, changes: Any, said: str) -> None:
        code, printed = self.run("verify-image", self.attested(**changes))
        assert code == 1
        assert said in printed

    @pytest.mark.parametrize("action", ["verify-image", "verify-chart"])
    def test_what_somebody_else_signed_is_refused(self, action: str) -> None:
        code, _ = self.run(action, self.attested(), FAILS="cosign")
        assert code == 1

    def test_a_chart_is_pushed_and_its_digest_is_signed_and_verified(self) -> None:
        assert self.run("chart", {"push": f"Pushed: ghcr.io/some/charts/pointsman:1.2.3\nDigest: {DIGEST}"}) == (0, "")
        assert self.run("verify-chart") == (0, "")
        push, sign, verify = self.called()
        assert push[:2] == ["helm", "push"]
        assert push[2].endswith("/pointsman-1.2.3.tgz")
        assert push[3] == "oci://ghcr.io/some/charts"
        assert sign[-1] == f"ghcr.io/some/charts/pointsman@{DIGEST}"
        assert verify[-1] == "ghcr.io/some/charts/pointsman:1.2.3"

    def test_a_push_without_a_digest_is_not_signed(self) -> None:
        code, printed = self.run("chart")
        assert code == 1
        assert "helm names no digest" in printed
        assert [name for name, *_ in self.called()] == ["helm"]

    def test_a_missing_setting_is_named(self) -> None:
        assert self.run("verify-chart", TAG="") == (1, "verify-chart: set TAG\n")


def test_the_client_has_the_licence_of_the_repository() -> None:
    assert (ROOT / "clients/python/LICENSE").read_text() == (ROOT / "LICENSE").read_text()
