"""Forks: a near-cache has no stream while its process forks, and the child opens one of its own.

gRPC cannot fork while a thread waits in it: the child hangs, now and then. So the streams are closed before a fork, in
some milliseconds. The parent resumes its own; the child opens one when it reads for the first time.
"""

import os
from typing import Protocol
from weakref import WeakSet

import grpc


class Forkable(Protocol):
    """What is called around a fork."""

    @property
    def fork_order(self) -> int:
        """Lower numbers are called earlier before a fork, and later after it."""
        ...

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


_everyone: "WeakSet[Forkable]" = WeakSet()
_forking: list[Forkable] = []
_registered: list[bool] = []


def follow_forks(forkable: Forkable) -> None:
    """Call it around forks, for as long as it exists."""
    if not _registered:
        _registered.append(True)
        _register()
    _everyone.add(forkable)


def _register() -> None:
    if not hasattr(os, "register_at_fork"):
        return  # Windows
    # With GRPC_ENABLE_FORK_SUPPORT, gRPC registers with the first channel; from its turn on no stream can end any more.
    # What is registered later is called earlier.
    grpc.insecure_channel("localhost:1").close()
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    _forking[:] = sorted(_everyone, key=lambda each: each.fork_order)
    for each in _forking:
        each.before_fork()


def _in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()
