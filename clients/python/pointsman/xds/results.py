"""What a server says of its xDS clients, and of what it sends them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import grpc


class ClientKind(StrEnum):
    """How a client wants its resources."""

    UNKNOWN = "unknown"
    GRPC = "grpc"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class XdsRefusal:
    """A response that a client refused (NACK); it keeps what it had before. ``message`` is the client's."""

    resource_type: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class XdsClient:
    """One connected client. ``names`` are at most 100 of ``name_count``; 0 is no ``acknowledged_revision`` yet."""

    id: str
    node_id: str
    user_agent: str
    kind: ClientKind
    address: str
    subject: str
    connect_time: datetime
    acknowledged_revision: int
    names: tuple[str, ...]
    name_count: int
    refusals: tuple[XdsRefusal, ...]


@dataclass(frozen=True, slots=True)
class XdsClients:
    """The clients of one worker of a server, and the revision of the routes that it has.

    A server has one worker, or ``worker_count``, which share its port; ``worker`` names this one.
    """

    clients: tuple[XdsClient, ...]
    revision: int
    worker: str = ""
    worker_count: int = 1


@dataclass(frozen=True, slots=True)
class XdsExplanation:
    """What clients of one kind are sent. ``status`` is what calls end with by themselves; OK: they are let through."""

    kind: ClientKind
    status: grpc.StatusCode
    reason: str
    limitations: tuple[str, ...]
    resources: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class XdsName:
    """A name, and what clients are sent for it as of ``revision``."""

    name: str
    revision: int
    explanations: tuple[XdsExplanation, ...]
