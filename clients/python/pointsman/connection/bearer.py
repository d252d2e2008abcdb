"""The bearer token of a call: a value, what a function returns, or what a file holds. No error repeats the token."""

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from pointsman.errors import DeadlineExceeded, PointsmanError, Unauthenticated

Token = str | Callable[[], str]
AsyncToken = Token | Callable[[], Awaitable[str]]

# Visible ASCII: what a header may hold, and all that JWTs and API keys consist of.
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Bearer:
    """The source of the bearer token, read for each attempt, so that the token can rotate.

    Raises ValueError when a token and a file are given, and for a token that cannot be sent.
    """

    def __init__(self, token: AsyncToken | None = None, token_file: str | os.PathLike[str] | None = None) -> None:
        if token is not None and token_file is not None:
            raise ValueError("give token or token_file, not both")
        problem = _problem(token) if isinstance(token, str) else None
        if problem:
            raise ValueError(f"token {problem}")
        self._file = None if token_file is None else TokenFile(token_file)
        self._token = self._file.read if self._file else token

    def token(self) -> str | None:
        """Return the token, or None where there is none to be sent. Raises Unauthenticated saying why."""
        answer = self._ask()
        if inspect.isawaitable(answer):
            _dispose(answer)
            raise _refusal("the token function is asynchronous: Client needs a plain one, AsyncClient takes both")
        return answer if answer is None else _sendable(answer)

    async def token_within(self, seconds: float) -> str | None:
        """Do what ``token`` does, and wait for an asynchronous function for ``seconds``, or raise DeadlineExceeded."""
        answer = self._ask()
        if inspect.isawaitable(answer):
            answer = await _awaited(answer, seconds)
        return answer if answer is None else _sendable(answer)

    def refused(self) -> None:
        """Take note that the token is too old: the file is read again even if it looks the same."""
        if self._file:
            self._file.distrust()

    def _ask(self) -> object:
        if not callable(self._token):
            return self._token
        try:
            return _present(self._token())
        except PointsmanError:
            raise
        except Exception as error:
            raise _function_failed(error) from error


class TokenFile:
    """A file that another program renews, as Kubernetes does with the token of a service account.

    Once it held a token, a moment in which it is absent or empty is passed over: it may be just being written. Should
    the token be refused meanwhile, the file is read again, and then its problem is the error.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._held: tuple[object, str] = (None, "")

    def read(self) -> str:
        """Return the token, read anew if the file has changed. Raises Unauthenticated when there is none."""
        version, token = self._held
        try:
            status = self._path.stat()
            now = (status.st_mtime_ns, status.st_size, status.st_ino)
            if now != version:
                token = self._content()
                self._held = (now, token)
        except OSError as error:
            if not token:
                raise _refusal(f"token file {self._path}: {error.strerror or type(error).__name__}") from error
        except Unauthenticated:
            if not token:
                raise
        return token

    def distrust(self) -> None:
        """Read the file the next time whether or not it has changed."""
        self._held = (None, "")

    def _content(self) -> str:
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            raise _refusal(f"token file {self._path} must hold ASCII only", "malformed") from None
        problem = _problem(token)
        if problem:
            raise _refusal(f"token file {self._path} {problem}", "malformed" if token else "missing")
        return token


async def _awaited(answer: Awaitable[object], seconds: float) -> object:
    try:
        async with asyncio.timeout(seconds) as bound:
            return _present(await answer)
    except PointsmanError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and bound.expired():
            raise DeadlineExceeded("the token function took longer than the call may take") from error
        raise _function_failed(error) from error


def _present(answer: object) -> object:
    return "" if answer is None else answer


def _sendable(answer: object) -> str:
    if not isinstance(answer, str):
        raise _refusal(f"the token function must return a str, not {type(answer).__name__}", "malformed")
    token = answer.strip()
    problem = _problem(token)
    if problem:
        raise _refusal(f"the token {problem}", "malformed" if token else "missing")
    return token


def _problem(token: str) -> str | None:
    if not token.strip():
        return "is empty"
    return None if _TOKEN.fullmatch(token.strip()) else "must be one word of visible ASCII, without 'Bearer'"


def _function_failed(error: Exception) -> Unauthenticated:
    return _refusal(f"the token function failed with {type(error).__name__}")


def _refusal(message: str, problem: str = "missing") -> Unauthenticated:
    metadata = {"credential": "bearer token", "problem": problem}
    return Unauthenticated(message, reason="UNAUTHENTICATED", metadata=metadata)


def _dispose(answer: Awaitable[object]) -> None:
    if inspect.iscoroutine(answer):
        answer.close()  # otherwise Python warns that it was never awaited
