"""Where the keys of an issuer come from: a URL or a file. Both are read up to a bound, and off the event loop."""

import asyncio
import ssl
from pathlib import Path

import httpx

from pointsman_server.runtime.refreshed import RefreshFailed

MOST_BYTES = 256 << 10
# Calls with an unknown key wait this long, in seconds.
FETCH_SECONDS = 3.0
# Not compressed: a few bytes could unpack to more than the bound.
HEADERS = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}


async def fetch(url: str, *, seconds: float = FETCH_SECONDS) -> bytes:
    """Return the body that ``url`` answers with, within ``seconds`` in all. Raises RefreshFailed.

    Redirects are not followed: a redirect would decide which keys sign tokens.
    """
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False, timeout=seconds) as client,
            client.stream("GET", url, headers=HEADERS, follow_redirects=False) as response,
        ):
            if response.status_code != 200:
                raise RefreshFailed(f"it answers {response.status_code}{_about_redirects(response.status_code)}")
            return await _body(response)
    except (TimeoutError, httpx.TimeoutException):
        raise RefreshFailed(f"it does not answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        # By type: texts of errors may quote what was sent.
        raise RefreshFailed(f"it cannot be reached ({type(error).__name__})") from error


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        _bounded(body)
    return bytes(body)


async def read(path: Path) -> bytes:
    """Return the content of the file at ``path``. Raises RefreshFailed."""
    return await asyncio.to_thread(_read, path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RefreshFailed(f"{path}: {error.strerror}") from error
    _bounded(text)
    return text


def _bounded(text: bytes | bytearray) -> None:
    if len(text) > MOST_BYTES:
        raise RefreshFailed(f"it has more than {MOST_BYTES >> 10} KiB")


def _about_redirects(status: int) -> str:
    return ", and redirects are not followed: set the address itself" if 300 <= status < 400 else ""
