"""The end of a call for which there is no backend: as gRPC ends a call, with the status that the near-cache gave."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from pointsman.errors import PointsmanError

REASON_KEY = "pointsman-reason"
"""In the trailing metadata: why there was no backend, such as ``ROUTE_INACTIVE``. A backend sends none."""


def details_of(key: str, error: PointsmanError) -> str:
    """Return what the status says: that no backend was called for ``key``, and why."""
    return f"pointsman {key}: {error.message}"


def trailing_metadata_of(error: PointsmanError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of the status."""
    return ((REASON_KEY, error.reason or error.code.name),)


class NoBackend(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """What a call raises, or the call itself where gRPC returns one: it is over, and no backend has seen it.

    ``code()`` is NOT_FOUND if nothing is live, and ``details()`` says why; the PointsmanError is the ``__cause__``.
    """

    def __init__(self, key: str, error: PointsmanError) -> None:
        super().__init__(details_of(key, error))
        self.__cause__ = error
        self._code = error.code
        self._details = details_of(key, error)
        self._trailing = trailing_metadata_of(error)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> Any:
        return self._trailing

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002
        """Return False: the call is over, and the callback will not be called."""
        return False

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002
        raise self

    def exception(self, timeout: float | None = None) -> Self:  # noqa: ARG002
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002
        return self.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> NoReturn:
        raise self

    def __repr__(self) -> str:
        return f"<NoBackend {self._code.name}: {self._details}>"

    __str__ = __repr__
