"""Questions before what cannot easily be undone."""

import sys

import typer


def can_ask() -> bool:
    """Say whether a person can answer a question."""
    return sys.stdin.isatty()


def confirm(consequence: str, question: str, yes: bool) -> None:
    """Ask, unless ``yes``. Raises Abort if the answer is no, and BadParameter where there is no terminal to ask on."""
    if yes:
        return
    if not can_ask():
        raise typer.BadParameter(f"{consequence}, and there is no terminal to ask on: give --yes")
    typer.confirm(question, abort=True, err=True)
