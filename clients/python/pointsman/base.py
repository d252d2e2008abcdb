"""What the sync and the asyncio client share: their parameters, and what they remember."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import grpc

from pointsman.connection import environment
from pointsman.connection.bearer import AsyncToken, Bearer
from pointsman.connection.channels import MAX_ATTEMPTS, ChannelOptions, channel_options
from pointsman.connection.tls import PathLike, channel_credentials
from pointsman.memory import DEFAULT_KEYS
from pointsman.rpc.session import DEFAULT_TIMEOUT, NearCacheMemory, Session

if TYPE_CHECKING:
    from pointsman.near_cache.watch.service import RemoteService

TokenT = TypeVar("TokenT", bound=AsyncToken)


class BaseClient(Generic[TokenT]):
    """A target, how to connect to it, and the session; what opens the connection is the subclass."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: TokenT | None = None,
        token_file: PathLike | None = None,
        tls: bool | None = None,
        ca_file: PathLike | None = None,
        cert_file: PathLike | None = None,
        key_file: PathLike | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_attempts: int = MAX_ATTEMPTS,
        remembered_keys: int = DEFAULT_KEYS,
        options: ChannelOptions = (),
    ) -> None:
        self._session = Session(timeout, Bearer(token, token_file), max_attempts, remembered_keys)
        self._target = target
        self._credentials = channel_credentials(credentials, tls, ca_file, cert_file, key_file)
        self._options = channel_options(target, max_attempts, options)
        self._prepare()

    def _prepare(self) -> None:
        """Do what a subclass does once its parameters are checked."""

    @classmethod
    def from_environment(cls, **arguments: Any) -> Self:
        """Make a client as the environment says; ``arguments`` are those of the constructor, and win.

        POINTSMAN_SERVER (localhost:50051), POINTSMAN_TOKEN or POINTSMAN_TOKEN_FILE, POINTSMAN_TLS, POINTSMAN_CA_FILE,
        POINTSMAN_CERT_FILE and POINTSMAN_KEY_FILE, POINTSMAN_TIMEOUT. The command reads the same.
        Raises ValueError for what cannot be read or contradicts itself.
        """
        return cls(**environment.arguments(os.environ, arguments))

    @property
    def last_revision(self) -> int:
        """The highest revision that a write of this client returned: what its resolves wait for. 0: none yet.

        Hand it to another process as ``min_revision``, with ``last_epoch`` as ``epoch``, and its resolves see the
        writes of this one. It is 0 again once an answer shows that the database has a new epoch.
        """
        return self._session.memory.written

    @property
    def last_epoch(self) -> str:
        """The epoch that ``last_revision`` counts in; empty until an answer of a resolve has said it."""
        return self._session.memory.epoch

    def _near_cache_service(self) -> "Callable[[], RemoteService]":
        """Return what connects a near-cache: by the synchronous API, in the process that calls it."""
        from pointsman.near_cache.watch.service import RemoteService, token_source

        token = token_source(self._session.bearer)

        def open_channel() -> grpc.Channel:
            options = [*self._options, ("grpc.use_local_subchannel_pool", 1)]
            if self._credentials is None:
                return grpc.insecure_channel(self._target, options=options)
            return grpc.secure_channel(self._target, self._credentials, options=options)

        return lambda: RemoteService(open_channel, token)

    def _leave(self, near_cache: NearCacheMemory) -> None:
        self._session.near_caches = tuple(each for each in self._session.near_caches if each is not near_cache)

    def forget_writes(self) -> None:
        """Forget what this client wrote and saw. A restored database is noticed without: its epoch is another."""
        self._session.memory.forget()
