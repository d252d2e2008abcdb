"""The example clients in Go, TypeScript and Java, each built as a project of its own under ``.cache/examples``.

``python -m tests.support.examples`` (part of ``make tools``; ``make examples`` prints where they are) puts each
example together with the descriptors of the API and what the examples share, generates its stubs, and builds it with
the tools of its language. Stubs are not committed: generating them takes a second, and there is nothing that could
differ from the protos. What is built stays until one of its sources changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "clients" / "examples"
PROTOS = ROOT / "protos"
DESCRIPTORS = ROOT / ".cache" / "protos" / "examples.binpb"
BUILD_SECONDS = 900
# What tools leave in a source tree.
ARTIFACTS = frozenset({"gen", "dist", "node_modules", "target", "testdata"})
SERVICE_CONFIG, WATCH_CASES = "service-config.json", "watch-cases.json"
# Beside this module: the rule has one file of vectors for all that implement it.
SELECTION_VECTORS = "selection_vectors.json"
# In full: Maven would look up what a prefix stands for, which takes a minute.
MAVEN_DEPENDENCY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
# A command lives for a second or two: it starts faster with the first compiler alone.
JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
# Without cgo, no C compiler is needed.
ENVIRONMENT = {"GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}


@dataclass(frozen=True)
class Example:
    """How an example is built and run. Commands run in its directory; their first word is a tool of its language.

    ``shared``: where the project has the files that the examples share.
    """

    name: str
    shared: Mapping[str, str]
    build: Sequence[Sequence[str]]
    run: Sequence[str]
    test: Sequence[str]
    tested_in: str = "."

    @property
    def directory(self) -> Path:
        """The directory of the project: another one for each version of its sources."""
        digest = hashlib.sha256()
        digest.update(repr((self, ENVIRONMENT)).encode())
        for path in (*self.sources(), *map(_shared, self.shared), *_protos()):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return ROOT / ".cache" / "examples" / f"{self.name}-{digest.hexdigest()[:12]}"

    def sources(self) -> list[Path]:
        """Return the files of the example, in a fixed order."""
        root = SOURCES / self.name
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return [path for path in found if not ARTIFACTS & set(path.relative_to(root).parts)]

    def missing(self) -> str:
        """Return why it cannot be run; empty when it is built."""
        return "" if self.directory.exists() else self.absent() or "run `make tools`"

    def absent(self) -> str:
        """Return which tool it needs that neither this machine nor a wheel has; empty when there is none."""
        needed = {command[0] for command in self.build} - {"buf", "npm"} - tools.WHEELS.keys()
        if "mvn" in needed:
            needed.add("javac")
        return ", ".join(f"{name} is not installed" for name in sorted(needed) if not _tool(name))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of the built program."""
        return [*_command(self.run), *arguments]

    def test_command(self) -> list[str]:
        """Return the command line of its own tests, to be run in ``tested_in``."""
        return _command(self.test)


EXAMPLES = {
    example.name: example
    for example in (
        Example(
            name="go",
            shared={
                SERVICE_CONFIG: "pointsman",
                WATCH_CASES: "pointsman/testdata",
                SELECTION_VECTORS: "pointsman/testdata",
            },
            build=(
                ("buf", "generate"),
                ("go", "vet", "./..."),
                ("go", "build", "-o", "pointsman-example", "."),
                ("go", "test", "-c", "-o", "pointsman/pointsman.test", "./pointsman"),
            ),
            run=("./pointsman-example",),
            test=("./pointsman.test", "-test.v"),
            tested_in="pointsman",
        ),
        Example(
            name="typescript",
            shared={SERVICE_CONFIG: ".", WATCH_CASES: ".", SELECTION_VECTORS: "."},
            build=(
                ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"),
                ("buf", "generate"),
                ("node", "node_modules/typescript/bin/tsc"),
            ),
            run=("node", "dist/src/main.js"),
            test=("node", "--test", "dist/test/protocol.test.js", "dist/test/selection.test.js"),
        ),
        Example(
            name="java",
            shared={
                SERVICE_CONFIG: "src/main/resources",
                WATCH_CASES: "src/test/resources",
                SELECTION_VECTORS: "src/test/resources",
            },
            build=(
                (
                    *("mvn", "-B", "-q", "-DskipTests", "package"),
                    *(
                        f"{MAVEN_DEPENDENCY}:copy-dependencies",
                        "-DincludeScope=test",
                        "-DoutputDirectory=target/test-lib",
                    ),
                ),
            ),
            run=("java", *JVM, "-jar", "target/pointsman-example.jar"),
            test=(
                *("java", *JVM, "-cp", "target/classes:target/test-classes:target/test-lib/*"),
                *("org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner"),
                *("--select-package=com.example.pointsman", "--fail-if-no-tests"),
            ),
        ),
    )
}


def _shared(name: str) -> Path:
    return (Path(__file__).parent if name == SELECTION_VECTORS else SOURCES) / name


def _protos() -> list[Path]:
    return [*sorted(PROTOS.rglob("*.proto")), PROTOS / "build.py"]


def _tool(name: str) -> Path | None:
    """Return the path of a tool: on PATH, or in the wheel that replaces it."""
    return tools.program(name) if name in tools.WHEELS else tools.tool(name)


def _command(words: Sequence[str]) -> list[str]:
    name, *rest = words
    if name == "npm":
        return [*tools.npm(), *rest]
    if name == "buf":
        return [str(Path(sys.executable).with_name("buf")), *rest]
    return [name if name.startswith("./") else str(_tool(name) or name), *rest]


def build(example: Example) -> str:
    """Build an example where that was not done. Returns the problem; empty when it is built."""
    directory = example.directory
    if directory.exists():
        return ""
    for name in {command[0] for command in example.build} & tools.WHEELS.keys():
        tools.provide(name)
    draft = directory.with_name(f"{directory.name}.{os.getpid()}")
    try:
        _assemble(example, draft)
        for words in example.build:
            _run(_command(words), draft)
    except (subprocess.SubprocessError, OSError) as error:
        return f"the example in {example.name} is not built: {error}\n{getattr(error, 'output', None) or ''}"
    draft.rename(directory)
    return ""


def _assemble(example: Example, draft: Path) -> None:
    """Make the project: the sources, the descriptors, and what is shared."""
    root = SOURCES / example.name
    for path in example.sources():
        place = draft / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for name, folder in example.shared.items():
        (draft / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(_shared(name), draft / folder)
    shutil.copy(DESCRIPTORS, draft / "pointsman.binpb")


def _run(command: Sequence[str], directory: Path) -> None:
    # The tools call each other: those of wheels are on no PATH.
    folders = {str(Path(found).parent) for name in ("go", "node") if (found := tools.program(name))}
    path = os.pathsep.join([*sorted(folders), os.environ["PATH"]])
    subprocess.run(
        command,
        cwd=directory,
        env=os.environ | ENVIRONMENT | {"PATH": path},
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
    )


def main() -> int:
    """Build what is missing, and print the directories. Returns 1 when something could not be built."""
    if any(not example.directory.exists() for example in EXAMPLES.values()):
        subprocess.run([sys.executable, str(PROTOS / "build.py")], check=True)
    for example in EXAMPLES.values():
        if absent := example.absent():
            sys.stderr.write(f"the example in {example.name} is left out: {absent}\n")
    problems = [problem for each in EXAMPLES.values() if not each.absent() and (problem := build(each))]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if "--quiet" not in sys.argv:
        print(*(example.directory for example in EXAMPLES.values() if example.directory.exists()), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
