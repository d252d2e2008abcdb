"""What makes a key part, a URL and a label well-formed: the rules of the API, to tell early and without a server.

The same rules as the server's, which checks all of it again and has the last word.
"""

import re
from urllib.parse import urlsplit

KEY_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
KEY_PART_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first and the last alphanumeric"
URL_MAX_LENGTH = 2048
LABELS_MAX_COUNT = 64
LABEL_VALUE_MAX_LENGTH = 256

_URL_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")
# What nearly every URL looks like, and is surely fine. A port of five digits may be too large.
_URL_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,4})?(/[!-\[\]-~]*)?")
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


def url_problem(url: str) -> str | None:
    """Say what is wrong with ``url``, or None. The answer never repeats the URL: it may hold a secret."""
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
    """Say what is wrong with one label, or None."""
    if not _LABEL_NAME.fullmatch(name):
        return f"label {name!r}: the name must be 1 to 63 characters of A-Z a-z 0-9 . _ / -, alphanumeric at both ends"
    if len(value) > LABEL_VALUE_MAX_LENGTH:
        return f"label {name}: the value must be at most {LABEL_VALUE_MAX_LENGTH} characters"
    if _LABEL_VALUE_FORBIDDEN.search(value):
        return f"label {name}: the value must have no control characters"
    return None
