"""cli.terminal: whole in a pipe, safe on a screen."""

import json

import pytest

from pointsman.cli.output.terminal import Color, Terminal, printable, write_error


@pytest.mark.parametrize("text", ["\x1b[31m", "\x07", "\x9b2J", "a\nb", "\r"])
def test_control_characters_are_shown_and_not_sent(text: str) -> None:
    assert printable(text).isprintable()


def test_other_text_stays_as_it_is() -> None:
    assert printable("größe → 10 [bold] :smile:") == "größe → 10 [bold] :smile:"


def test_a_line_is_never_wrapped_nor_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]" + "x" * 500
    Terminal(as_json=False, color=Color.AUTO).line(text, "red")
    assert capsys.readouterr().out == text + "\n"


def test_plain_text_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=False, color=Color.ALWAYS).line("[bold]größe\x1b")
    Terminal(as_json=False, color=Color.ALWAYS).note("a\tb")
    assert capsys.readouterr() == ("[bold]größe\\x1b\n", "a\\tb\n")


def test_colour_can_be_forced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    Terminal(as_json=False, color=Color.ALWAYS).line("text", "red")
    assert "\x1b[31m" in capsys.readouterr().out


def test_with_json_there_are_no_notes(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=True, color=Color.AUTO).note("by the way")
    assert capsys.readouterr().err == ""


def test_an_error_is_lines_or_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    write_error({"code": "X"}, ["one", "two"], as_json=False)
    assert capsys.readouterr().err == "one\ntwo\n"
    write_error({"code": "X"}, ["one", "two"], as_json=True)
    assert json.loads(capsys.readouterr().err) == {"error": {"code": "X"}}
