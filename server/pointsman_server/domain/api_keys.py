"""API keys: a name, grants, and a secret that is shown once and stored as a digest.

The text is ``pmk_<id>_<secret><check>``: only letters, digits and ``_``, so that a double click selects all of it, it
needs no encoding in ``authorization: Bearer`` (RFC 6750 §2.1), and scanners find leaked keys
(``pmk_[a-z2-7]{10}_[0-9A-Za-z]{49}``). The check (CRC-32) tells a mistyped or truncated key from an unknown one.

SHA-256 is enough, although passwords need a slow hash: the secret has 256 random bits, so guessing is hopeless at any
speed (NIST SP 800-63B-4 §3.1.2.2 requires a slow hash below 112 bits).
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pointsman.rules import KEY_PART, KEY_PART_RULE
from pointsman_server.domain.identity import Credential, Grant, Identity

PREFIX = "pmk"
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # base32 (RFC 4648 §6), in lower case
_ID_LENGTH = 10
_DIGITS = string.digits + string.ascii_letters  # base62
_SECRET_BYTES, _SECRET_LENGTH = 32, 43  # 62 ** 43 > 2 ** 256
_CHECK_LENGTH = 6  # 62 ** 6 > 2 ** 32
_TEXT = re.compile(
    rf"{PREFIX}_(?P<id>[{_ID_ALPHABET}]{{{_ID_LENGTH}}})_(?P<secret>[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"(?P<check>[0-9A-Za-z]{{{_CHECK_LENGTH}}})"
)


@dataclass(frozen=True)
class ApiKey:
    """A stored API key. ``digest`` is the SHA-256 of its secret. Times have a time zone; None means never.

    ``replaced_at`` is when a newer key of the same name replaced it: it stays valid until ``expires_at``.
    """

    id: str
    name: str
    digest: bytes
    grants: tuple[Grant, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    replaced_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str = ""

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, name={self.name!r})"

    def has_secret(self, secret: str) -> bool:
        """Return whether ``secret`` is that of the key, in constant time."""
        return hmac.compare_digest(digest_of(secret), self.digest)

    def expired(self, now: float) -> bool:
        """Return whether the key has expired at ``now``, in seconds of Unix time."""
        return self.expires_at is not None and self.expires_at.timestamp() <= now

    @cached_property
    def identity(self) -> Identity:
        """The identity of callers with this key: always the same object, so that lookups by it are fast."""
        subject = f"key:{self.name}"
        if self.expires_at is None:
            return Identity(subject, Credential.API_KEY, self.grants)
        return Identity(subject, Credential.API_KEY, self.grants, expires_at=self.expires_at.timestamp())


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key: its id, the digest to store, and the ``text`` to show once."""

    id: str
    digest: bytes
    text: str

    def __repr__(self) -> str:
        return f"Minted(id={self.id!r})"


def mint() -> Minted:
    """Generate a key from the random source of the operating system."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = _base62(int.from_bytes(secrets.token_bytes(_SECRET_BYTES)), _SECRET_LENGTH)
    text = f"{PREFIX}_{key_id}_{secret}"
    return Minted(key_id, digest_of(secret), text + _check(text))


def parse(text: str) -> tuple[str, str]:
    """Split the text of a key into id and secret. Raises ValueError, which contains nothing of the text."""
    match = _TEXT.fullmatch(text)
    if not match or not hmac.compare_digest(_check(text[:-_CHECK_LENGTH]), match["check"]):
        raise ValueError("it is not a whole API key")
    return match["id"], match["secret"]


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` is valid: it becomes part of subjects, and of patterns in policies."""
    if not KEY_PART.fullmatch(name):
        raise ValueError(f"the name {name!r} {KEY_PART_RULE}")


def _check(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
