"""Texts of clients, for people."""

# In place of what a client says, for those who may not see all that it may name.
HIDDEN = "hidden: the client also asks for what you may not read"


def printable(text: str) -> str:
    """Replace what a terminal or a log could take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)
