"""output.prompts: a question, its answer, and no question where nobody can answer."""

import pytest
import typer

from pointsman.cli.output.prompts import confirm


def test_yes_answers_before_the_question() -> None:
    confirm("x would be deleted", "Delete x?", yes=True)


def test_without_a_terminal_it_wants_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman.cli.output.prompts.can_ask", lambda: False)
    with pytest.raises(typer.BadParameter, match="x would be deleted, and there is no terminal to ask on: give --yes"):
        confirm("x would be deleted", "Delete x?", yes=False)


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    asked = []

    def ask(question: str, *, abort: bool, err: bool) -> None:
        asked.append((question, err))
        if abort and not answer:
            raise typer.Abort

    monkeypatch.setattr("pointsman.cli.output.prompts.can_ask", lambda: True)
    monkeypatch.setattr(typer, "confirm", ask)
    if answer:
        confirm("x would be deleted", "Delete x?", yes=False)
    else:
        with pytest.raises(typer.Abort):
            confirm("x would be deleted", "Delete x?", yes=False)
    assert asked == [("Delete x?", True)]
