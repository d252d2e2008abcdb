"""The rules for keys, URLs and labels. Client and server share this module, which imports the standard library alone.

The client checks early, to name the line of a file; the server checks every request.
"""

import re
from urllib.parse import urlsplit

KEY_PARTS = ("tenant", "service", "env", "version")
KEY_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
KEY_PART_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first and the last alphanumeric"
URL_MAX_LENGTH = 2048
LABELS_MAX_COUNT = 64
LABEL_VALUE_MAX_LENGTH = 256

_KEY = re.compile("/".join([KEY_PART.pattern] * len(KEY_PARTS)))
_URL_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")
# Matches most valid URLs at once, which makes a large import cheaper. A port of five digits may be too large: not here.
_URL_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,4})?(/[!-\[\]-~]*)?")
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


class InvalidKey(ValueError):
    """A text that names no route. ``field`` is ``key``, or ``key.tenant`` and so on where one part is malformed."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def split_key(text: str) -> list[str]:
    """Return tenant, service, env and version of ``tenant/service/env/version``. Raises InvalidKey."""
    parts = text.split("/")
    if _KEY.fullmatch(text):
        return parts
    if len(parts) != len(KEY_PARTS):
        raise InvalidKey("key", f"{text!r} must be tenant/service/env/version")
    field, part = next(
        (field, part) for field, part in zip(KEY_PARTS, parts, strict=True) if not KEY_PART.fullmatch(part)
    )
    raise InvalidKey(f"key.{field}", f"{part!r} {KEY_PART_RULE}")


def url_problem(url: str) -> str | None:
    """Return what is wrong with ``url``, or None if it is absolute, with a host and without credentials.

    RFC 3986, section 3. The text never repeats the URL, which may hold a secret.
    """
    if len(url) > URL_MAX_LENGTH:
        return f"must be at most {URL_MAX_LENGTH} characters"
    if _URL_PLAIN.fullmatch(url):
        return None
    if _URL_FORBIDDEN.search(url):
        return "must have no whitespace, control characters or backslashes"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "must be a valid URL: check its host, brackets and port"
    if not _URL_SCHEME.fullmatch(parts.scheme) or not parts.hostname:
        return "must be absolute, with a scheme and a host, like https://payments.internal:8443"
    if "@" in parts.netloc:
        return "must have no credentials: hand out secrets by other means"
    return None


def label_problem(name: str, value: str) -> str | None:
    """Return what is wrong with one label, or None."""
    if not _LABEL_NAME.fullmatch(name):
        return f"label {name!r}: the name must be 1 to 63 characters of A-Z a-z 0-9 . _ / -, alphanumeric at both ends"
    if len(value) > LABEL_VALUE_MAX_LENGTH:
        return f"label {name}: the value must be at most {LABEL_VALUE_MAX_LENGTH} characters"
    if _LABEL_VALUE_FORBIDDEN.search(value):
        return f"label {name}: the value must have no control characters"
    return None
