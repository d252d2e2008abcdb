"""The workflows of GitHub: what they call exists, and nothing in them has more rights than it needs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {name for line in re.findall(r"^([a-z][a-z -]*):(?!=)", MAKEFILE, re.MULTILINE) for name in line.split()}
FILES = {path.stem: path for path in (ROOT / ".github/workflows").glob("*.yml")}
WORKFLOWS = {name: yaml.safe_load(path.read_text()) for name, path in FILES.items()}
DEPENDABOT = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
JOBS = [(workflow, job) for workflow in WORKFLOWS for job in WORKFLOWS[workflow]["jobs"]]
# A workflow that is not called can do nothing; these may write.
RIGHTS = {
    ("release", "pypi"): {"id-token": "write"},
    ("release", "image"): {"contents": "read", "packages": "write", "id-token": "write"},
    ("release", "chart"): {"contents": "read", "packages": "write", "id-token": "write"},
    ("release", "notes"): {"contents": "write"},
}


def steps(workflow: str, job: str) -> list[Any]:
    return list(WORKFLOWS[workflow]["jobs"][job]["steps"])


def all_steps() -> Iterator[Any]:
    for workflow, job in JOBS:
        yield from steps(workflow, job)


def commands() -> list[str]:
    return [step["run"] for step in all_steps() if "run" in step]


def used(workflow: str, job: str) -> list[str]:
    return [step["uses"].partition("@")[0] for step in steps(workflow, job) if "uses" in step]


def runs(workflow: str, job: str) -> list[str]:
    return [step["run"] for step in steps(workflow, job) if "run" in step]


class TestWorkflows:
    @pytest.mark.parametrize("command", sorted(set(commands())))
    def test_run_only_targets_of_the_makefile(self, command: str) -> None:
        found = re.fullmatch(r"(?:sudo --preserve-env=[A-Z,]+ )?make ([a-z-]+)", command)
        assert found, f"{command} is no make target, which runs elsewhere too"
        assert found[1] in TARGETS

    @pytest.mark.parametrize("workflow", FILES)
    def test_pin_every_action_by_a_commit_and_say_its_version(self, workflow: str) -> None:
        lines = [line.strip("- ") for line in FILES[workflow].read_text().splitlines() if "uses:" in line]
        assert lines
        assert not [line for line in lines if not re.fullmatch(r" *uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)]

    def test_use_one_commit_of_each_action(self) -> None:
        pins = {step["uses"] for step in all_steps() if "uses" in step}
        assert len(pins) == len({pin.partition("@")[0] for pin in pins})

    @pytest.mark.parametrize(("workflow", "job"), JOBS)
    def test_every_job_has_the_rights_that_it_needs_and_an_end(self, workflow: str, job: str) -> None:
        assert WORKFLOWS[workflow]["permissions"] == {}
        described = WORKFLOWS[workflow]["jobs"][job]
        assert described["permissions"] == RIGHTS.get((workflow, job), {"contents": "read"})
        assert 0 < described["timeout-minutes"] <= 90
        checkouts = [step for step in steps(workflow, job) if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)

    @pytest.mark.parametrize("workflow", WORKFLOWS)
    def test_do_not_run_beside_themselves(self, workflow: str) -> None:
        assert WORKFLOWS[workflow]["concurrency"]["group"]

    def test_know_no_secret(self) -> None:
        assert not [name for name, path in FILES.items() if "secrets." in path.read_text()]

    def test_what_may_write_is_started_by_a_tag_alone(self) -> None:
        assert {workflow for workflow, _ in RIGHTS} == {"release"}
        # YAML reads the word on as a truth.
        assert set(WORKFLOWS["release"][True]) == {"push"}
        assert set(WORKFLOWS["release"][True]["push"]) == {"tags"}


class TestContinuousIntegration:
    def test_tests_every_python_that_the_packages_promise(self) -> None:
        tested = WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"]
        assert tested == ["3.11", "3.12", "3.13", "3.14"]
        for project in ("pyproject.toml", "clients/python/pyproject.toml"):
            text = (ROOT / project).read_text()
            assert f'requires-python = ">={tested[0]}"' in text
            assert re.findall(r"Programming Language :: Python :: (3\.\d+)", text) == tested

    def test_runs_what_a_change_must_pass(self) -> None:
        must = re.findall(r"^make (\S+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
        assert {f"make {target}" for target in must} <= set(commands())

    def test_builds_and_starts_both_images(self) -> None:
        assert WORKFLOWS["ci"]["jobs"]["image"]["strategy"]["matrix"]["transport"] == ["envoy", "grpcio"]
        assert runs("ci", "image") == ["make image-oci", "sudo --preserve-env=TRANSPORT make image-check"]


class TestRelease:
    def test_publishes_nothing_that_was_not_checked_and_tested(self) -> None:
        needs = {name: job.get("needs") for name, job in WORKFLOWS["release"]["jobs"].items()}
        assert needs == {
            "build": None,
            "test": "build",
            "pypi": "test",
            "image": "test",
            "chart": "image",
            "notes": ["pypi", "image", "chart"],
        }
        assert runs("release", "build")[0] == "make release-check"

    def test_publishes_the_client_before_the_server_that_requires_it_with_attestations(self) -> None:
        job = WORKFLOWS["release"]["jobs"]["pypi"]
        assert job["strategy"] == {"max-parallel": 1, "matrix": {"distribution": ["pointsman", "pointsman-server"]}}
        assert used("release", "pypi") == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
        assert steps("release", "pypi")[-1]["with"] == {"attestations": True}

    @pytest.mark.parametrize("artifact", ["image", "chart"])
    def test_verifies_what_it_published_in_the_same_job(self, artifact: str) -> None:
        assert runs("release", artifact)[-2:] == [f"make release-{artifact}", f"make release-verify-{artifact}"]
        assert "sigstore/cosign-installer" in used("release", artifact)

    def test_publishes_the_images_that_were_checked(self) -> None:
        built = [WORKFLOWS[name]["jobs"]["image"]["strategy"]["matrix"] for name in ("ci", "release")]
        assert built[0] == built[1]


class TestDependabot:
    def test_looks_at_directories_that_hold_what_it_looks_for(self) -> None:
        files = {
            "docker": "Dockerfile",
            "docker-compose": "compose.yaml",
            "github-actions": ".github/workflows/ci.yml",
            "gomod": "go.mod",
            "maven": "pom.xml",
            "npm": "package.json",
            "pip": "pyproject.toml",
        }
        watched = {
            (each["package-ecosystem"], directory)
            for each in DEPENDABOT
            for directory in each.get("directories", [each.get("directory")])
        }
        assert {ecosystem for ecosystem, _ in watched} == set(files)
        assert not [each for each in watched if not (ROOT / each[1].lstrip("/") / files[each[0]]).exists()]

    def test_waits_a_week_before_it_trusts_a_version(self) -> None:
        assert {each["cooldown"]["default-days"] for each in DEPENDABOT} == {7}
