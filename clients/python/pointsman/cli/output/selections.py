"""How choices of versions read to people."""

from pointsman.selection import Choice, Rule

_RULES = {
    Rule.SPLIT: "by the weights of the traffic",
    Rule.FALLBACK: "as a fallback of the traffic",
    Rule.ONLY_ACTIVE: "the only active version",
    Rule.UNKNOWN: "by a rule that this client does not know",
}


def choice_text(choice: Choice, traffic_revision: int) -> str:
    """Return which version was chosen, by which rule, and which versions it passed over."""
    traffic = f" (revision {traffic_revision})" if traffic_revision else ""
    passed = f"; not {', '.join(choice.inactive_versions)}: inactive" if choice.inactive_versions else ""
    return f"{choice.version}, {_RULES[choice.rule]}{traffic}{passed}"
