"""One thing that was looked at, and what it means for an operator."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """``ERROR``: something does not work now. ``WARNING``: it will not, or not as it should. ``OK``: as it should."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """``what``: the state, in a sentence. ``since``: when it began, as far as known, RFC 3339 in UTC.

    ``works``: what still works meanwhile. ``remedy``: what to do.
    """

    severity: Severity
    subject: str
    what: str
    since: str = ""
    works: str = ""
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Severity.OK, subject, what)


def warning(subject: str, what: str, remedy: str) -> Finding:
    """Return a finding about what works today."""
    return Finding(Severity.WARNING, subject, what, remedy=remedy)


def error(subject: str, what: str, remedy: str, *, works: str = "", since: str = "") -> Finding:
    """Return a finding about what does not work."""
    return Finding(Severity.ERROR, subject, what, since, works, remedy)


def in_order(findings: list[Finding]) -> list[Finding]:
    """Sort: what is worst comes first, and what belongs together stays together."""
    return sorted(findings, key=lambda finding: (ORDER.index(finding.severity), finding.subject))


def to_lines(finding: Finding) -> list[str]:
    """Describe a finding for people."""
    since = f", since {finding.since}" if finding.since else ""
    lines = [f"{finding.severity.value:8} {finding.subject}: {finding.what}{since}"]
    if finding.works:
        lines.append(f"{'':8} still works: {finding.works}")
    if finding.remedy:
        lines.append(f"{'':8} do: {finding.remedy}")
    return lines


def to_document(finding: Finding) -> dict[str, str]:
    """Describe a finding for programs."""
    return {name: str(value) for name, value in asdict(finding).items() if value}
