"""The test vectors of Select, by a second and plain implementation of its rule.

``python -m tests.support.selection_vectors`` writes ``selection_vectors.json``, which every implementation is tested
against. In ``docs/traffic.md`` is the rule.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
FAMILY = "team-a/payments/prod"

KEYS = (
    *("user-1", "user-2", "user-3", "user-17", "0", "a", " ", "42", "account:7f0e", "user-1\n1", "tab\there", "a/b/c"),
    *("Zoë", "用户-42", "🦊", "e\u0301", "\u00e9", "ключ", "\u0000nul", "😀" * 64, "é" * 128, "k" * 256),
)
FEW = KEYS[:6]


def word(family: str, sticky_key: str, number: int) -> int:
    """Return word ``number`` of a caller."""
    text = f"{family}\n{sticky_key}" + (f"\n{number // 4}" if number >= 4 else "")
    place = number % 4 * 8
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[place : place + 8], "big")


def choose(case: dict[str, Any], sticky_key: str) -> dict[str, Any]:
    """Return what Select chooses for one caller of a case."""
    traffic, active = case["traffic"], case["active"]
    if traffic is None:
        if len(active) == 1:
            return {"version": active[0], "rule": "ONLY_ACTIVE", "inactive_versions": []}
        return {"error": "AMBIGUOUS_VERSION" if active else "NO_ACTIVE_VERSION"}
    owner = [piece["version"] for piece in traffic["slices"] for _ in range(piece["size"])]
    if any(version in active for version in owner):
        return _split(owner, active, case["family"], sticky_key)
    passed = [target["version"] for target in traffic["targets"] if target["weight"]]
    for version in traffic["fallbacks"]:
        if version in active:
            return {"version": version, "rule": "FALLBACK", "inactive_versions": passed}
        if version not in passed:
            passed.append(version)
    return {"error": "NO_ACTIVE_VERSION"}


def _split(owner: Sequence[str], active: Sequence[str], family: str, sticky_key: str) -> dict[str, Any]:
    passed: list[str] = []
    for number in range(64):
        version = owner[word(family, sticky_key, number) % 10_000]
        if version in active:
            return {"version": version, "rule": "SPLIT", "inactive_versions": passed}
        if version not in passed:
            passed.append(version)
    left = [version for version in owner if version in active]
    version = left[word(family, sticky_key, 64) % len(left)]
    return {"version": version, "rule": "SPLIT", "inactive_versions": passed}


def case(
    name: str,
    slices: Sequence[tuple[str, int]] | None,
    active: str,
    *,
    fallbacks: str = "",
    targets: str = "",
    family: str = FAMILY,
    keys: Sequence[str] = FEW,
) -> dict[str, Any]:
    """Make a case; versions are separated by spaces. Targets are those of the slices, in order, unless given."""
    made: dict[str, Any] = {"name": name, "family": family, "traffic": None, "active": active.split()}
    if slices is not None:
        versions = targets.split() or list(dict.fromkeys(version for version, _ in slices))
        weights = {version: sum(size for owner, size in slices if owner == version) for version in versions}
        made["traffic"] = {
            "targets": [{"version": version, "weight": weight} for version, weight in weights.items()],
            "fallbacks": fallbacks.split(),
            "slices": [{"version": version, "size": size} for version, size in slices],
        }
    made["selections"] = [{"sticky_key": key, **choose(made, key)} for key in keys]
    return made


def vectors() -> dict[str, Any]:
    """Return all of them."""
    halves = [("v1", 5000), ("v2", 5000)]
    canary = [("v1", 9000), ("v2", 1000)]
    thirds = [("v1", 3334), ("v2", 3333), ("v3", 3333)]
    striped = [(f"v{number % 5}", 40) for number in range(250)]
    thousand = [(f"v{number % 3}", 10) for number in range(999)] + [("v3", 10)]
    tiny = [("v1", 9998), ("v2", 1), ("v3", 1)]
    return {
        "words": [
            {"family": FAMILY, "sticky_key": key, "words": [str(word(FAMILY, key, number)) for number in range(9)]}
            for key in ("user-1", "Zoë", "用户-42", "k" * 256)
        ],
        "cases": [
            case("all to one", [("v1", 10_000)], "v1"),
            case("half and half", halves, "v1 v2", keys=KEYS),
            case("half and half, the other way round", halves[::-1], "v1 v2"),
            case("another family", halves, "v1 v2", family="team-b/payments/prod", keys=KEYS),
            case("one in ten", canary, "v1 v2", keys=KEYS),
            case("one in ten, the canary inactive", canary, "v1", keys=KEYS),
            case("one in ten, the rest inactive", canary, "v2", keys=KEYS),
            case("thirds", thirds, "v1 v2 v3", keys=KEYS),
            case("thirds, the first inactive", thirds, "v2 v3", keys=KEYS),
            case("thirds, two inactive", thirds, "v3", keys=KEYS),
            case("moved back and forth", [("v1", 4000), ("v2", 1000), ("v1", 2000), ("v2", 3000)], "v1 v2", keys=KEYS),
            case("250 slices", striped, "v0 v1 v2 v3 v4", keys=KEYS),
            case("250 slices, three versions inactive", striped, "v2 v4", keys=KEYS),
            case("1,000 slices", thousand, "v0 v1 v2 v3"),
            case("two points are left, and word 64 decides", tiny, "v2 v3", keys=KEYS),
            case("one point is left", tiny, "v3"),
            case("a target without weight gets nothing", canary, "v1 v2 v3", targets="v3 v1 v2"),
            case("a target without weight is no fallback", canary, "v3", targets="v3 v1 v2"),
            case("fallback", canary, "v0", fallbacks="v0"),
            case("the second fallback", canary, "v9", fallbacks="v0 v9"),
            case("the first of two active fallbacks", canary, "v0 v9", fallbacks="v9 v0"),
            case("a target as a fallback", canary, "v3", fallbacks="v2 v1 v3"),
            case("no fallback while a target is active", canary, "v0 v2", fallbacks="v0"),
            case("a target without weight as a fallback", canary, "v3", targets="v1 v2 v3", fallbacks="v3"),
            case("all inactive", canary, "", fallbacks="v0"),
            case("only one active, no traffic", None, "v7"),
            case("none active, no traffic", None, ""),
            case("several active, no traffic", None, "v1 v2"),
        ],
    }


def text() -> str:
    """Return the content of the file: one line for each selection."""
    found = vectors()
    parts = []
    for each in found["cases"]:
        lines = ",\n".join("    " + json.dumps(one, ensure_ascii=False) for one in each["selections"])
        head = json.dumps({name: value for name, value in each.items() if name != "selections"})
        parts.append(f'  {head[:-1]}, "selections": [\n{lines}\n  ]}}')
    words = ",\n".join("  " + json.dumps(each, ensure_ascii=False) for each in found["words"])
    return '{"words": [\n' + words + '\n], "cases": [\n' + ",\n".join(parts) + "\n]}\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
