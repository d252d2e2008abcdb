"""Texts that clients send, as they are shown to people."""

# Shown instead of the text of a client, to callers who may not see every name that it may contain.
HIDDEN = "hidden: the client also asks for what you may not read"


def printable(text: str) -> str:
    """Replace what a terminal or a log could take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)
