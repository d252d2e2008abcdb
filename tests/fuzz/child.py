"""One run of a target on bytes: ``python -m tests.fuzz.child NAME PACKAGE,… [libFuzzer's options and directories]``.

A process of its own, because libFuzzer ends it.
"""

import resource
import sys

import atheris

from tests.fuzz import harness

# Above what the interpreter and its libraries map, and below what would harm the machine.
ADDRESS_SPACE = 8 << 30


def main(name: str, packages: str, options: list[str]) -> None:
    """Run until an input fails or libFuzzer has had enough. Does not return."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with atheris.instrument_imports(include=packages.split(",")):
        module = harness.target(name)
    mutator = {"custom_mutator": module.mutate} if hasattr(module, "mutate") else {}
    atheris.Setup([sys.argv[0], *options], module.check, **mutator)
    with harness.quiet():
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
