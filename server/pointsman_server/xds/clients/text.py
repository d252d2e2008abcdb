"""Texts of clients, for people."""


def printable(text: str) -> str:
    """Replace what a terminal or a log could take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)
