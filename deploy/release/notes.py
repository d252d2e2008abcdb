"""Whether a version can be released, and the notes of its release. Standard library alone.

``python3 deploy/release/notes.py check TAG`` ends with 1 where a file names another version than TAG, which is v1.2.3.
``python3 deploy/release/notes.py print TAG`` prints the version's part of CHANGELOG.md, and how to verify a release.
"""

import argparse
import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERIFY = """
### Verify

```console
$ cosign verify {registry}/pointsman-server:{version} \\
    --certificate-identity https://github.com/{repository}/.github/workflows/release.yml@refs/tags/{tag} \\
    --certificate-oidc-issuer https://token.actions.githubusercontent.com
```

The same holds for the image `{registry}/pointsman-server:{version}-grpcio`, without Envoy, and for the chart
`{registry}/charts/pointsman:{version}`. The distributions on PyPI have attestations of the same workflow.
"""


class Releasable:
    """The files of a repository that name its version."""

    def __init__(self, root: Path, tag: str) -> None:
        self._root = root
        self.version = tag.removeprefix("v")
        self._changes = (root / "CHANGELOG.md").read_text()

    def problems(self) -> list[str]:
        """Return the places that another version stands in."""
        return [
            f"{place} says {found}, not {self.version}" for place, found in self._named() if found != self.version
        ] + self._problems_of_changelog()

    def _named(self) -> list[tuple[str, str]]:
        server, client = (tomllib.loads((self._root / name).read_text())["project"] for name in PROJECTS)
        (required,) = (each for each in server["dependencies"] if re.match(r"pointsman\b(?!-)", each))
        return [
            (PROJECTS[0], server["version"]),
            (PROJECTS[1], client["version"]),
            (f"the dependencies in {PROJECTS[0]}", required.partition("==")[2]),
            *((path, self._search(path, pattern)) for path, pattern in ELSEWHERE),
        ]

    def _search(self, path: str, pattern: str) -> str:
        found = re.search(pattern, (self._root / path).read_text(), re.MULTILINE)
        return found[1] if found else "nothing"

    def _heading(self) -> re.Match[str] | None:
        return re.search(rf"^## \[{re.escape(self.version)}\] - (.+)$", self._changes, re.MULTILINE)

    def _problems_of_changelog(self) -> list[str]:
        heading = self._heading()
        if heading is None:
            return [f"CHANGELOG.md has no heading [{self.version}]"]
        dated = re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[1])
        return [] if dated else [f"CHANGELOG.md has no date for {self.version}: {heading[1]}"]

    def notes(self) -> str:
        """Return the text under the version's heading. Raises LookupError where there is none."""
        heading = self._heading()
        if heading is None:
            raise LookupError(self.version)
        rest = self._changes[heading.end() :]
        following = re.search(r"^## ", rest, re.MULTILINE)
        return rest[: following.start() if following else None].strip() + "\n"


PROJECTS = ("pyproject.toml", "clients/python/pyproject.toml")
ELSEWHERE = (
    ("Dockerfile", r"^ARG VERSION=(.+)$"),
    ("deploy/helm/pointsman/Chart.yaml", r"^version: (.+)$"),
    ("deploy/helm/pointsman/Chart.yaml", r'^appVersion: "(.+)"$'),
)


def main() -> None:
    """Check or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "print"))
    parser.add_argument("tag")
    arguments = parser.parse_args()
    release = Releasable(ROOT, arguments.tag)
    if arguments.action == "check":
        if problems := release.problems():
            sys.exit("\n".join(problems))
        return
    verify = VERIFY.format(
        registry=os.environ.get("REGISTRY", "ghcr.io/OWNER").lower(),
        repository=os.environ.get("GITHUB_REPOSITORY", "OWNER/REPOSITORY"),
        tag=arguments.tag,
        version=release.version,
    )
    print(release.notes() + verify, end="")


if __name__ == "__main__":
    main()
