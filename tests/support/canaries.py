"""Secrets that are planted so that they can be looked for, in whichever form they may have got out."""

import base64
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus


def forms(secret: str) -> Iterator[bytes]:
    """Give the texts that betray ``secret``: as it is, escaped for URLs, in hex, and in base64 wherever it begins."""
    raw = secret.encode()
    yield from (raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), raw.hex().encode())
    for before in range(3):
        # What comes before and after shares characters with the first and the last byte: they tell nothing.
        shifted = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        inner = shifted[(0, 2, 3)[before] : len(shifted) - (1 if (before + len(raw)) % 3 else 0)]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def found(where: Mapping[str, str | bytes], secrets: Mapping[str, str]) -> list[str]:
    """Say which of ``secrets`` is in which of the texts, by the names of both."""
    texts = {place: text.encode() if isinstance(text, str) else text for place, text in where.items()}
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, text in texts.items()
        if any(form in text for form in forms(secret))
    ]
