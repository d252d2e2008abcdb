"""The policy as a file of TOML: who is granted what.

It is opened by its path at each read, so that a file that was moved into its place is found, and so is what lies behind
the symbolic link that Kubernetes swaps when a ConfigMap changes.
"""

import asyncio
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pointsman_server.auth.permissions import Policy, Rule
from pointsman_server.config.types import did_you_mean
from pointsman_server.domain.grants import parse_names, parse_role
from pointsman_server.domain.identity import ANY, Grant, Pattern
from pointsman_server.runtime.refreshed import RefreshFailed

LARGEST_BYTES = 1 << 20
KEYS = ("subjects", "claim", "value", "roles", "tenants", "envs")
EXAMPLE = '[[grant]] with subjects = ["jwt:alice"], roles = ["reader"], tenants = ["team-a"]'
# A pattern begins with the kind of its subjects, or is * alone: j* would be people as well as jobs.
_SUBJECT = re.compile(r"\*|(jwt:|key:|dns:|spiffe://)[^\x00-\x20\x7f]{1,1024}")

T = TypeVar("T")


class PolicyError(RefreshFailed):
    """The file cannot be read, or is no policy: one line per problem, each with the file, the rule and the key."""


async def load_policy(path: Path) -> Policy:
    """Read a policy off the event loop: the disk may be slow. Raises PolicyError."""
    return await asyncio.to_thread(read_policy, path)


def read_policy(path: Path) -> Policy:
    """Read a policy. Raises PolicyError."""
    try:
        # Not a pipe or a device: their end may never come.
        if path.exists() and not path.is_file():
            raise PolicyError(f"{path} is no file: name the policy file itself")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_BYTES:
        raise PolicyError(f"{path} is larger than {LARGEST_BYTES} bytes: use patterns and claims instead of names")
    return parse_policy(content, str(path))


def parse_policy(content: bytes, file: str) -> Policy:
    """Read the content of ``file``. Raises PolicyError."""
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    # Not only TOMLDecodeError: numbers without end and nesting without end fail in their own ways.
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{file} is no TOML: {error}") from None
    problems = [
        f"{file}: {_shown(key)} is unknown: a policy consists of [[grant]]" for key in document if key != "grant"
    ]
    tables = document.get("grant", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PolicyError("\n".join([*problems, f"{file}: grant is no list of tables: write [[grant]]"]))
    # Nor may it be empty, as a file is while it is being written: it would deny every call.
    if not tables:
        problems.append(f"{file} grants nothing to anybody: add {EXAMPLE}")
    readers = [_RuleReader(f"grant {number} of {file}", table) for number, table in enumerate(tables, 1)]
    rules = tuple(reader.read() for reader in readers)
    problems += [problem for reader in readers for problem in reader.problems]
    if problems:
        raise PolicyError("\n".join(problems))
    return Policy(rules)


class _RuleReader:
    """Reads one table, and collects its problems."""

    def __init__(self, name: str, table: Mapping[str, object]) -> None:
        self._name = name
        self._table = table
        self.problems: list[str] = []

    def read(self) -> Rule:
        """Return the rule, which counts only if there are no ``problems``."""
        self.problems += self._unknown_keys()
        subjects = self._list("subjects", _subject) if "subjects" in self._table else ()
        claim, value = self._claim()
        if not {"subjects", "claim", "value"} & self._table.keys():
            self._complain("has neither subjects nor a claim: say whom it is for")
        roles = self._list("roles", parse_role)
        tenants = self._list("tenants", lambda text: parse_names(text, "the tenant"))
        envs = self._list("envs", lambda text: parse_names(text, "the env")) if "envs" in self._table else ()
        return Rule(self._name, (Grant(frozenset(roles), tenants, envs or (Pattern(ANY),)),), subjects, claim, value)

    def _unknown_keys(self) -> Iterator[str]:
        for key in self._table:
            if key not in KEYS:
                hint = did_you_mean(key, KEYS) or f": the keys are {', '.join(KEYS)}"
                yield f"{self._name}: {_shown(key)} is unknown{hint}"

    def _claim(self) -> tuple[str, str]:
        if not {"claim", "value"} & self._table.keys():
            return "", ""
        return self._text("claim", "a claim of a JWT"), self._text("value", "what the claim must hold")

    def _text(self, key: str, what: str) -> str:
        value = self._table.get(key)
        if value is None:
            self._complain(f"has no {key}: claim and value go together, name {what}")
        elif not isinstance(value, str) or not value:
            self._complain(f"{key} must be a text that is not empty, {what}")
        else:
            return value
        return ""

    def _list(self, key: str, read: Callable[[str], T]) -> tuple[T, ...]:
        values = self._table.get(key)
        if values is None:
            self._complain(f"has no {key}: add {key} = [...]")
            return ()
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            self._complain(f'{key} must be a list of texts that is not empty, such as {key} = ["..."]')
            return ()
        return tuple(self._items(key, values, read))

    def _items(self, key: str, values: list[str], read: Callable[[str], T]) -> Iterator[T]:
        for value in values:
            try:
                yield read(value)
            except ValueError as error:
                self._complain(f"{key}: {error}")

    def _complain(self, problem: str) -> None:
        self.problems.append(f"{self._name}: {problem}")


def _shown(key: str) -> str:
    # Printed on terminals: control characters of somebody else's policy must not reach them.
    return key if key.isprintable() else repr(key)


def _subject(text: str) -> Pattern:
    if not _SUBJECT.fullmatch(text):
        kinds = "jwt:, key:, dns: or spiffe://"
        raise ValueError(f"{text!r} must begin with {kinds} and go on without spaces, or be * for every caller")
    return Pattern(text)
