"""``pointsman explain``: what a caller gets, and why."""

from typing import TYPE_CHECKING, Annotated

import typer

from pointsman.cli.context import Json, StickyKey, settings
from pointsman.cli.output.documents import explanation_document
from pointsman.cli.output.selections import choice_text
from pointsman.cli.output.text import show_fields, time_text, traffic_text, what_text

if TYPE_CHECKING:
    from pointsman.results import Change
    from pointsman.traffic import Explanation, Layer, PermissionVerdict


def explain(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="tenant/service/env: a select; with /version: a resolve", show_default=False
        ),
    ],
    sticky_key: StickyKey = "",
    subject: Annotated[str, typer.Option(help="Whose permission to explain; default: yours.")] = "",
    as_json: Json = False,
) -> None:
    """Say what a caller gets now and why: the rule, what each layer holds, the last change, and the permission."""
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        explanation = client.explain(key, sticky_key=sticky_key, subject=subject)
    if terminal.as_json:
        terminal.document({"key": key, **explanation_document(explanation)})
        return
    show_fields(terminal, _fields(key, explanation))
    terminal.line("")
    terminal.table(("LAYER", "HOLDS", "AS OF", "AGE"), map(_layer_row, explanation.layers))
    for rule in explanation.permission.rules:
        terminal.line(f"{'allows' if rule.allows else 'does not'}  {rule.source}: {rule.why}")


def _fields(key: str, explanation: "Explanation") -> dict[str, str]:
    traffic, choice, change = explanation.traffic, explanation.choice, explanation.last_change
    is_select = key.count("/") == 2
    fields = {
        "key": key,
        "answer": explanation.route.url if explanation.route else _refusal(explanation),
        "why": choice_text(choice, traffic.revision if traffic else 0) if choice else "",
        "traffic": f"{traffic_text(traffic)}{f' (revision {traffic.revision})' if traffic else ''}"
        if is_select
        else "",
        "as of": f"revision {explanation.as_of_revision}",
        "changed": _change(change) if change else "not in the history that is kept",
        "may read": _permission(explanation.permission),
    }
    return {name: text for name, text in fields.items() if text}


def _refusal(explanation: "Explanation") -> str:
    error = explanation.error
    return f"{error.reason or error.code.name}: {error.message}" if error else ""


def _change(change: "Change") -> str:
    reason = f" ({change.reason})" if change.reason else ""
    what = f"{change.kind} {change.key} {what_text(change)}".rstrip()
    return f"revision {change.revision}, {time_text(change.occur_time)}, by {change.actor}{reason}: {what}"


def _permission(verdict: "PermissionVerdict") -> str:
    return f"{verdict.subject} {'has' if verdict.allowed else 'has no'} {verdict.permission}"


def _layer_row(layer: "Layer") -> tuple[str, ...]:
    if not layer.held:
        return str(layer.source), layer.problem or "nothing", "", ""
    age = "" if layer.age is None else f"{layer.age.total_seconds():.3f} s"
    holds = f"revision {layer.revision}" if layer.revision else "that there is none"
    return str(layer.source), "; ".join(filter(None, (holds, layer.problem))), f"revision {layer.as_of_revision}", age
