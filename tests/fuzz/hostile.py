"""Hostile texts and numbers, and messages of any type made of them.

Everything is drawn from a ``random.Random``: hypothesis provides one that it can shrink, atheris a seed. Hypothesis
shrinks towards zeros, so zeros make well-formed values.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.support.fakes import EPOCH

CANARY = "c4n4ry"

TEXTS = (
    "",
    "\0",
    "a\0b",
    "a" * 63,
    "a" * 64,
    "a" * 1025,
    "é" * 256,
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "\N{ZERO WIDTH JOINER}",
    "\N{LINE SEPARATOR}",
    "\x7f",
    "\x1b[31m",
    "a\n",
    "a\r\nHost: b",
    "-a",
    "a-",
    "..",
    "a/b",
    "a//b",
    "%s%n{0}",
    "'; DROP TABLE routes; --",
    "Traceback (most recent call last)",
    f"https://user:{CANARY}@payments.internal",
    f"https://{CANARY}@payments.internal:8443/x",
    f"https://payments.internal\\@{CANARY}",
    "https://payments.internal:99999",
    "https://[::1",
    "https://[::1]:8443/?q#f",
    "https://a.internal/" + "x" * 2048,
    "payments.internal",
    "//payments.internal",
    "https:///x",
    "HTTPS://A",
    "https://\N{FULLWIDTH LATIN SMALL LETTER A}.internal",
    "https://\N{ACCOUNT OF}.internal",
    "javascript:alert(1)",
    "\N{MATHEMATICAL BOLD SCRIPT SMALL A}" * 600,
)
NUMBERS = (0, 1, 2, 3, 99, 1001, 2**31 - 1, 2**53 + 1, 2**63 - 1, -1, -(2**31), -(2**63))

# Well-formed values by field name, so that most messages pass validation.
KNOWN: dict[str, tuple[str, ...]] = {
    "tenant": ("a", "acme"),
    "service": ("b", "pay"),
    "env": ("c", "prod"),
    "version": ("live", "idle", "new"),
    "fallbacks": ("live", "idle", "new"),
    "url": ("https://a.internal", "http://[::1]:8080/x?y#z", "grpc+unix://host/path"),
    "request_id": ("", "used", "fresh", "a:b.c-d_e"),
    "reason": ("", "because"),
    "page_token": ("",),
    "actor": ("", "ann"),
    "epoch": ("", EPOCH, EPOCH[::-1]),
}
HOSTILE_SHARE = 0.07


def text(random: Random, name: str = "") -> str:
    """Draw a text for a field of this name, mostly a well-formed one."""
    known = KNOWN.get(name)
    if known and random.random() < 1 - HOSTILE_SHARE:
        return random.choice(known)
    if random.random() > 0.8:
        return "".join(chr(_code_point(random)) for _ in range(random.randrange(20)))
    return random.choice(TEXTS)


def _code_point(random: Random) -> int:
    point = random.choice((random.randrange(128), random.randrange(0xD800), random.randrange(0xE000, 0x110000)))
    return int(point)


def fill(random: Random, message: Message, share: float = 0.75) -> None:
    """Set a share of the fields of ``message``, of any type, to well-formed and hostile values."""
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    for field in fields:
        if random.random() > 1 - share:
            _set(random, message, field)


def _set(random: Random, message: Message, field: FieldDescriptor) -> None:
    if _is_map(field):
        entries = getattr(message, field.name)
        for _ in range(65 if random.random() > 0.98 else random.randrange(3)):
            entries[text(random) or random.choice(("tier", "k8s.io/name"))] = text(random)
    elif field.is_repeated and field.type != FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).extend(_scalar(random, field) for _ in range(random.choice((0, 1, 2, 5))))
    elif field.is_repeated:
        for _ in range(random.choice((0, 1, 2, 5))):
            _fill_any(random, getattr(message, field.name).add())
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill_any(random, inner)
    else:
        setattr(message, field.name, _scalar(random, field))


def _fill_any(random: Random, message: Message) -> None:
    """Fill a message. Keys are mostly those of existing routes, so that look-ups find some."""
    if message.DESCRIPTOR.name != "RouteKey":
        fill(random, message)
        return
    for part in ("tenant", "service", "env", "version"):
        known = KNOWN[part][:1] if part != "version" else KNOWN[part]
        setattr(message, part, random.choice(known) if random.random() < 1 - HOSTILE_SHARE / 2 else text(random))


def _scalar(random: Random, field: FieldDescriptor) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return text(random, field.name)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return random.random() < 0.5
    if field.type == FieldDescriptor.TYPE_ENUM:
        return random.choice((0, 1, 2, 3, 7, -1, 2**31 - 1))
    limit = 2**31 if field.type == FieldDescriptor.TYPE_INT32 else 2**63
    number = random.choice(NUMBERS) if random.random() > 0.7 else random.choice((0, 0, 1, 2))
    return max(-limit, min(limit - 1, number))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def unknown_fields(random: Random) -> bytes:
    """Return bytes of fields that no message has: nested groups, huge numbers, wrong wire types, truncated values."""
    deep = random.choice((1, 50, 99, 101, 500))
    return random.choice(
        (
            b"",
            b"\xfa\x3f\x04junk",
            b"\xf8\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\xf8\x3f" + b"\xff" * 11,
            b"\xfb\x3f" * deep + b"\xfc\x3f" * deep,
            b"\xfb\x3f" * deep,
            b"\x08\x01" * 20,
            b"\x0a\xff\xff\xff\xff\x07",
            b"\x12\x02\xff\xfe",
            b"\x12\x03\xed\xa0\x80",
            b"\x0a\x06\x0a\x04\xc0\x80\xc0\x80",
        )
    )
