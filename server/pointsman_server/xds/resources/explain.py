"""What clients of a kind are sent for a name, and what they cannot do with it, in words."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf import json_format

from pointsman_server.xds.protocol.messages import POOL
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import encode
from pointsman_server.xds.resources.build import message
from pointsman_server.xds.resources.clusters import cluster_names
from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.resources.listeners import ENVOY_LISTENER
from pointsman_server.xds.resources.priorities import EJECTION_SECONDS, FAILED_CONNECTIONS
from pointsman_server.xds.resources.verdicts import fallbacks_of, not_carried, unused_fallbacks, verdict_of
from pointsman_server.xds.targets import Slot, Target, Verdict
from pointsman_server.xds.views import DEFAULT_CA_FILE, DEFAULT_LISTEN, ClientKind, View

# The views of clients whose node has no metadata.
PLAIN: Mapping[ClientKind, View] = {
    ClientKind.GRPC: View(ClientKind.GRPC),
    ClientKind.ENVOY: View(ClientKind.ENVOY, ca_file=DEFAULT_CA_FILE, listen=DEFAULT_LISTEN),
}


class ExplainedResource(NamedTuple):
    """``content`` is the message as protobuf's JSON, with the field names of the API."""

    kind: ResourceType
    name: str
    version: str
    content: dict[str, Any]


class Explanation(NamedTuple):
    """``verdict`` is the status that calls end with; LIVE lets them through."""

    verdict: Verdict
    reason: str
    limitations: tuple[str, ...]
    resources: tuple[ExplainedResource, ...]


def explain(view: View, root: str, target: Target, *, served_instead: str = "") -> Explanation:
    """Explain what clients of ``view`` are sent for ``root``.

    ``served_instead``: the name that Envoys are given in place of ``root`` (``envoy.collisions``).
    """
    verdict = verdict_of(view.kind, target)
    return Explanation(
        verdict,
        _reason(view.kind, target, verdict),
        tuple(_limitations(view, target, served_instead)),
        tuple(_resources(view, root, target)),
    )


def _reason(kind: ClientKind, target: Target, verdict: Verdict) -> str:
    if verdict is not Verdict.NOT_CARRIED:
        return target.reason
    weighted = [slot for slot in target.slots if slot.weight]
    return "; ".join(f"{slot.version}: {reason}" for slot, reason in not_carried(kind, weighted))


def _limitations(view: View, target: Target, served_instead: str) -> Iterable[str]:
    if served_instead and view.kind is ClientKind.ENVOY:
        yield (
            f"Envoy does not route to this name: it differs from {served_instead} in case only, and Envoy compares "
            "domains without regard to case. Rename one of the two"
        )
    if target.verdict is not Verdict.LIVE:
        return
    fallbacks = fallbacks_of(view.kind, target)
    used = dict.fromkeys((*(slot for slot in target.slots if slot.weight), *fallbacks))
    for slot, reason in unused_fallbacks(view.kind, target):
        yield f"{slot.version} is no fallback: {reason}"
    for slot in used:
        destination = destination_of(view.kind, slot.url)
        if isinstance(destination, Destination):
            yield from _of_destination(view, slot, destination)
    yield from _of_family(view.kind, target)


def _of_destination(view: View, slot: Slot, destination: Destination) -> Iterable[str]:
    if view.kind is ClientKind.ENVOY:
        if destination.path:
            yield f"{slot.version}: Envoy puts {destination.path} before the path of each call"
        if destination.tls:
            yield f"{slot.version}: {_certificate(destination)}, of a CA in {view.ca_file} on Envoy's host"
        return
    if not destination.tls:
        yield (
            f"{slot.version}: its URL is plaintext: use insecure credentials, or XdsCredentials that fall back to them"
        )
        return
    yield (
        f"{slot.version}: use XdsCredentials; {_certificate(destination)}. Other credentials decide by themselves: "
        "insecure ones send plaintext, and those of TLS compare the certificate with the name xds:///…"
    )
    if not view.ca_provider:
        yield (
            f"{slot.version}: the bootstrap names no certificate provider in node.metadata.pointsman.ca_provider, so "
            "the certificates of the system are used: grpcio can do that, grpc-go with "
            "GRPC_EXPERIMENTAL_XDS_SYSTEM_ROOT_CERTS=true, grpc-js cannot"
        )


def _certificate(destination: Destination) -> str:
    return f"the certificate must be valid for {destination.san}"


def _of_family(kind: ClientKind, target: Target) -> Iterable[str]:
    if sum(1 for slot in target.slots if slot.weight) > 1:
        yield "each call is divided by chance: sticky keys are of Select alone"
    if fallbacks_of(kind, target) and kind is ClientKind.GRPC:
        yield "a fallback is used while no connection to the version before it can be made, not after errors of calls"
    if fallbacks_of(kind, target) and kind is ClientKind.ENVOY:
        yield (
            "a fallback is used for a call that could not be connected to the version before it, and for all calls of "
            f"{EJECTION_SECONDS} s after {FAILED_CONNECTIONS} such calls, not after errors of calls"
        )


def _resources(view: View, root: str, target: Target) -> Iterable[ExplainedResource]:
    listener = ENVOY_LISTENER if view.kind is ClientKind.ENVOY else root
    yield _explained(view, ResourceType.LDS, listener, target)
    yield _explained(view, ResourceType.RDS, root, target)
    for name in cluster_names(view, root, target):
        explained = _explained(view, ResourceType.CDS, name, target)
        yield explained
        if explained.content.get("type") == "EDS":
            yield _explained(view, ResourceType.EDS, name, target)


def _explained(view: View, kind: ResourceType, name: str, target: Target) -> ExplainedResource:
    content = message(view, kind, name, target)
    version = f"{encode(kind, name, content).version:016x}"
    as_json = json_format.MessageToDict(content, preserving_proto_field_name=True, descriptor_pool=POOL)
    return ExplainedResource(kind, name, version, as_json)
