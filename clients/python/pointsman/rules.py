"""The rules for keys, URLs and labels. Client and server share this module, which imports the standard library alone.

The client checks early, to name the line of a file; the server checks every request.
"""

import re
import unicodedata
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urlsplit

KEY_PARTS = ("tenant", "service", "env", "version")
KEY_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
KEY_PART_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first and the last alphanumeric"
URL_MAX_LENGTH = 2048
HOST_MAX_LENGTH = 253
# By scheme that gRPC and xDS can call: the port of a URL that names none.
DEFAULT_PORTS = {"http": 80, "grpc": 80, "https": 443, "grpcs": 443}
TLS_SCHEMES = frozenset({"https", "grpcs"})
HOST_LABEL_MAX_LENGTH = 63
LABELS_MAX_COUNT = 64
LABEL_VALUE_MAX_LENGTH = 256

_KEY = re.compile("/".join([KEY_PART.pattern] * len(KEY_PARTS)))
_URL_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")
# Matches most valid URLs at once, which makes a large import cheaper. Not here: a port of five digits, which may be too
# large; a host with "--", which may be punycode; one whose last label begins with a digit, which may be an address.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_URL_PLAIN = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*://(?![^/]*--)(?=[A-Za-z0-9.-]{{1,253}}(?:[:/]|\Z))(?:{_LABEL}\.)*[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?"
    r"(:[0-9]{1,4})?(/[!-\[\]-~]*)?"
)
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# Unicode's Default_Ignorable_Code_Point without those of category Cf, and the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LABEL_CATEGORIES = frozenset({"Ll", "Lu", "Lo", "Lm", "Mn", "Mc", "Nd"})
# RFC 5892, appendix A.3 to A.7: allowed in some scripts. Which they stand in is not checked.
_LABEL_PUNCTUATION = "\u00b7\u0375\u05f3\u05f4\u30fb"
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
    return parts if _KEY.fullmatch(text) else _checked(text, parts, KEY_PARTS)


def split_family(text: str) -> list[str]:
    """Return tenant, service and env of ``tenant/service/env``. Raises InvalidKey."""
    return _checked(text, text.split("/"), KEY_PARTS[:-1])


def _checked(text: str, parts: list[str], names: Sequence[str]) -> list[str]:
    if len(parts) != len(names):
        raise InvalidKey("key", f"{text!r} must be {'/'.join(names)}")
    for name, part in zip(names, parts, strict=True):
        if not KEY_PART.fullmatch(part):
            raise InvalidKey(f"key.{name}", f"{part!r} {KEY_PART_RULE}")
    return parts


def url_problem(url: str) -> str | None:
    """Return what is wrong with ``url``, or None if it is absolute, with a host that can exist, and no credentials.

    RFC 3986 §3; hosts by RFC 1123 §2.1 and RFC 5890. The text never repeats the URL, which may hold a secret.
    """
    if len(url) > URL_MAX_LENGTH:
        return f"must be at most {URL_MAX_LENGTH} characters"
    if _URL_PLAIN.fullmatch(url):
        return None
    if _URL_FORBIDDEN.search(url) or (not url.isascii() and any(map(_is_invisible, url))):
        return "must have no whitespace, control or invisible characters, and no backslashes"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "must be a valid URL: check its host, brackets and port"
    if not _URL_SCHEME.fullmatch(parts.scheme) or not parts.hostname:
        return "must be absolute, with a scheme and a host, like https://payments.internal:8443"
    if "@" in parts.netloc:
        return "must have no credentials: hand out secrets by other means"
    if not (_is_ipv6 if parts.netloc.startswith("[") else _is_host)(parts.hostname):
        return "must have a valid host: an IP address, or labels of 1 to 63 letters, digits, - and _, 253 in all"
    return None


def ascii_host(host: str) -> str:
    """Return a host that ``url_problem`` accepts as DNS and certificates have it, in lower case (RFC 5890)."""
    if ":" in host or host.isascii():
        return host.lower()
    return ".".join(_encoded_label(label) for label in host.lower().split("."))


def _is_invisible(character: str) -> bool:
    """Say whether people cannot see a character, or do not see what it stands for: formats, private use, surrogates."""
    return unicodedata.category(character) in {"Cf", "Co", "Cs"} or bool(_INVISIBLE.match(character))


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """Say whether ``host``, in lower case, is an IPv4 address or a name that DNS can have (RFC 1123 §2.1, RFC 5891)."""
    labels = host.removesuffix(".").split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        # As browsers do: a name that ends in a number is an address or nothing.
        try:
            IPv4Address(host)
        except AddressValueError:
            return False
        return True
    encoded = [_encoded_label(label) for label in labels]
    return all(encoded) and len(".".join(encoded)) <= HOST_MAX_LENGTH


def _encoded_label(label: str) -> str:
    """Return a label of a host in ASCII; empty if it is not valid."""
    if label.startswith("xn--"):
        try:
            decoded = label[4:].encode("ascii").decode("punycode")
        except UnicodeError:
            return ""
        return label if not decoded.isascii() and _encoded_label(decoded) == label else ""
    if label.isascii():
        return label if _HOST_LABEL.fullmatch(label) else ""
    encoded = f"xn--{label.encode('punycode').decode('ascii')}"
    return encoded if _is_unicode_label(label) and len(encoded) <= HOST_LABEL_MAX_LENGTH else ""


def _is_unicode_label(label: str) -> bool:
    """Say whether a label is letters, marks and digits, normalized, as RFC 5891 §4.2.3 and RFC 5892 want it."""
    return (
        unicodedata.normalize("NFKC", label) == label
        and not label.startswith("-")
        and not label.endswith("-")
        and label[2:4] != "--"
        and not unicodedata.category(label[0]).startswith("M")
        and all(map(_is_label_character, label))
    )


def _is_label_character(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "-_"
    if character in _LABEL_PUNCTUATION:
        return True
    return unicodedata.category(character) in _LABEL_CATEGORIES and not _INVISIBLE.match(character)


def label_problem(name: str, value: str) -> str | None:
    """Return what is wrong with one label, or None."""
    if not _LABEL_NAME.fullmatch(name):
        return f"label {name!r}: the name must be 1 to 63 characters of A-Z a-z 0-9 . _ / -, alphanumeric at both ends"
    if len(value) > LABEL_VALUE_MAX_LENGTH:
        return f"label {name}: the value must be at most {LABEL_VALUE_MAX_LENGTH} characters"
    if _LABEL_VALUE_FORBIDDEN.search(value):
        return f"label {name}: the value must have no control characters"
    return None
