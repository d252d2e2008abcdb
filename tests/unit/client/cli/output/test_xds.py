"""cli.output.xds: texts. The documents are tested with their commands."""

from pointsman.cli.output.xds import names_text


def test_of_many_names_the_first_are_shown() -> None:
    assert names_text((), 0) == ""
    assert names_text(("a", "b", "c"), 3) == "a b c"
    assert names_text(("a", "b", "c", "d"), 120) == "a b c and 117 more"
