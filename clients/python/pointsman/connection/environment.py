"""The environment variables that say where the server is and who the caller is: those of the command, too."""

from collections.abc import Mapping
from typing import Any

DEFAULT_TARGET = "localhost:50051"

_TEXTS = {
    "target": "POINTSMAN_SERVER",
    "token": "POINTSMAN_TOKEN",
    "token_file": "POINTSMAN_TOKEN_FILE",
    "ca_file": "POINTSMAN_CA_FILE",
    "cert_file": "POINTSMAN_CERT_FILE",
    "key_file": "POINTSMAN_KEY_FILE",
}
_SWITCH = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
# An argument replaces all that the environment says of the same matter.
_MATTERS = ({"token", "token_file"}, {"credentials", "tls", "ca_file", "cert_file", "key_file"})


def arguments(environ: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client: those ``given``, and for the rest what ``environ`` says.

    A variable that is empty counts as absent. Raises ValueError naming the variable that cannot be read.
    """
    found: dict[str, Any] = {"target": DEFAULT_TARGET}
    found |= {name: environ[variable] for name, variable in _TEXTS.items() if environ.get(variable)}
    if environ.get("POINTSMAN_TLS"):
        found["tls"] = _switch(environ["POINTSMAN_TLS"])
    if environ.get("POINTSMAN_TIMEOUT"):
        found["timeout"] = _seconds(environ["POINTSMAN_TIMEOUT"])
    if "token" in found and "token_file" in found and not _MATTERS[0] & given.keys():
        raise ValueError("POINTSMAN_TOKEN and POINTSMAN_TOKEN_FILE are both set: set one")
    for matter in _MATTERS:
        if matter & given.keys():
            found = {name: value for name, value in found.items() if name not in matter}
    return found | dict(given)


def _switch(text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError(f"POINTSMAN_TLS must be true or false, not {text!r}") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"POINTSMAN_TIMEOUT must be a number of seconds, not {text!r}") from None
