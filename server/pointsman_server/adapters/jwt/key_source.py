"""Where the keys of an issuer come from: a URL or a file. Neither keeps the event loop, or is read beyond a bound."""

import asyncio
from pathlib import Path

import aiohttp

from pointsman_server.runtime.refreshed import RefreshFailed

MOST_BYTES = 256 << 10
# Callers whose key is not known wait so long.
FETCH_SECONDS = 3.0


async def fetch(url: str, *, seconds: float = FETCH_SECONDS) -> bytes:
    """Get what ``url`` answers. Raises RefreshFailed.

    Redirects are not followed: who can redirect this says which keys sign tokens.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            headers = {"accept": "application/jwk-set+json, application/json"}
            async with session.get(url, allow_redirects=False, headers=headers) as response:
                if response.status != 200:
                    raise RefreshFailed(f"it answers {response.status}{_about_redirects(response.status)}")
                return await _body(response)
    except TimeoutError:
        raise RefreshFailed(f"it does not answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # By type: texts of errors may quote what was sent.
        raise RefreshFailed(f"it cannot be reached ({type(error).__name__})") from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        _bounded(body)
    return bytes(body)


async def read(path: Path) -> bytes:
    """Read the file at ``path``. Raises RefreshFailed."""
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
