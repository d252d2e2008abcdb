"""ListXdsClients and ExplainXds of XdsService."""

from collections.abc import Callable, Sequence

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.v1 import xds_service_pb2 as pb
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.codec import timestamp
from pointsman_server.domain.errors import FieldViolation, InvalidField, StoreUnavailable
from pointsman_server.domain.identity import Permission, Scope
from pointsman_server.domain.routes import RouteKey
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.clients.text import HIDDEN, printable
from pointsman_server.xds.clients.visibility import Visibility, roots_of
from pointsman_server.xds.names import key_of, root_name
from pointsman_server.xds.resources.envoy import collisions
from pointsman_server.xds.resources.explain import PLAIN, Explanation, explain
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import ClientKind

DEFAULT_SIZE, MAX_SIZE = 100, 1_000
MOST_NAMES = 100
# Clients, and families, that are looked at in a turn: half a millisecond.
CLIENTS_IN_A_TURN, FAMILIES_IN_A_TURN = 50, 3_000
KINDS = {ClientKind.GRPC: pb.XDS_CLIENT_KIND_GRPC, ClientKind.ENVOY: pb.XDS_CLIENT_KIND_ENVOY}
NO_PAGE = (
    "must be the next_page_token of the page before, of the same worker, which has not restarted since: read the list "
    "from its beginning, on one connection"
)
NOT_A_KEY = (
    "must be tenant/service/env/version or tenant/service/env, or as clients write it: version~env~service~tenant or "
    "env~service~tenant"
)


class XdsMethods:
    """Serves the methods from the clients and the snapshot of this process."""

    def __init__(
        self,
        clients: Clients,
        snapshot: Callable[[], ResourceSnapshot],
        fair_share: FairShare | None = None,
        *,
        workers: int = 1,
    ) -> None:
        """``workers``: how many processes share the port. ``fair_share``: whom large answers take turns with."""
        self._clients = clients
        self._snapshot = snapshot
        self._fair_share = fair_share or FairShare()
        self._workers = workers

    async def list_clients(self, request: pb.ListXdsClientsRequest, caller: Caller) -> pb.ListXdsClientsResponse:
        """List the clients of which ``caller`` may see a name. Raises InvalidField for a malformed page token."""
        visibility, after, clients = Visibility(caller), self._position(request.page_token), self._clients
        size = min(request.page_size or DEFAULT_SIZE, MAX_SIZE)
        response = pb.ListXdsClientsResponse(
            revision=self._snapshot().clock.revision, worker=clients.process, worker_count=self._workers
        )
        for client in clients:
            if client.id <= after:
                continue
            if client.id % CLIENTS_IN_A_TURN == 0:
                await self._fair_share.take()
            names = visibility.visible(client, roots_of(client))
            if not (names or visibility.is_own(client)) or not _wants(names, request.name_prefix):
                continue
            if len(response.clients) == size:
                response.next_page_token = response.clients[-1].id
                break
            response.clients.append(_message(clients.name_of(client), client, names, visibility))
        return response

    async def explain(self, request: pb.ExplainXdsRequest, caller: Caller) -> pb.ExplainXdsResponse:
        """Explain a name. Raises InvalidField where it is none, Forbidden where ``caller`` may not read it.

        Raises StoreUnavailable where there is no table yet, of which no name could be said to be unknown.
        """
        key = _key(request.key)
        scope = Scope(key.tenant, key.env)
        if not caller.may_read(scope):
            raise Forbidden(caller.subject, Permission.READ, scope.tenant, scope.env)
        root, snapshot = root_name(key), self._snapshot()
        if not snapshot.clock.epoch:
            raise StoreUnavailable
        response = pb.ExplainXdsResponse(name=root, revision=snapshot.clock.revision)
        target = snapshot.target(root)
        for kind, number in KINDS.items():
            if request.kind in (pb.XDS_CLIENT_KIND_UNSPECIFIED, number):
                instead = await self._instead(snapshot.table, key, caller) if kind is ClientKind.ENVOY else ""
                explained = explain(PLAIN[kind], root, target, served_instead=instead)
                response.explanations.append(_explanation(number, explained))
        return response

    async def _instead(self, table: Table, key: RouteKey, caller: Caller) -> str:
        """Return the name that Envoys are given in place of that of ``key``, if one differs from it in case alone.

        Of names that the caller may not read nothing is said; an Envoy of the caller is not given them either.
        """
        root, family = root_name(key), root_name(key.family_key)
        folded, families, alike = root.lower(), list(table.families()), []
        for start in range(0, len(families), FAMILIES_IN_A_TURN):
            await self._fair_share.take()
            # The lengths first: there may be 100,000 families.
            some = (each for each in families[start : start + FAMILIES_IN_A_TURN] if len(each) == len(family))
            alike += [each for each in some if folded.endswith(each.lower())]
        alike = [each for each in alike if (found := key_of(each)) and caller.may_read(Scope(found.tenant, found.env))]
        versions = (f"{version}~{each}" for each in alike for version in table.versions(each))
        return collisions(each for each in (versions if key.version else alike) if each.lower() == folded).get(root, "")

    def _position(self, page_token: str) -> int:
        process, _, position = page_token.partition("-")
        if not page_token:
            return 0
        if process != self._clients.process or not (position.isascii() and position.isdecimal()):
            raise InvalidField([FieldViolation("page_token", NO_PAGE)])
        return int(position)


def _key(text: str) -> RouteKey:
    key = key_of(text if "~" in text else "~".join(reversed(text.split("/"))))
    if key is None:
        raise InvalidField([FieldViolation("key", NOT_A_KEY)])
    return key


def _wants(names: Sequence[str], prefix: str) -> bool:
    return not prefix or any(name.startswith(prefix) for name in names)


def _message(name: str, client: Connected, names: Sequence[str], visibility: Visibility) -> pb.XdsClient:
    described, acknowledged = client.stream.client, client.acknowledged
    message = pb.XdsClient(
        id=name,
        node_id=printable(described.node),
        user_agent=printable(described.agent),
        kind=KINDS[described.view.kind],
        address=described.peer,
        subject=described.caller.subject,
        connect_time=Timestamp(seconds=int(described.opened), nanos=int(described.opened % 1 * 1e6) * 1000),
        acknowledged_revision=acknowledged.revision if acknowledged else 0,
        names=sorted(names)[:MOST_NAMES],
        name_count=len(names),
    )
    # What a client says may name what the caller may not see.
    hides = not visibility.is_own(client) and len(names) < len(roots_of(client))
    for kind, refusal in client.refusals.items():
        text = HIDDEN if hides else printable(refusal.text)
        message.refusals.add(resource_type=kind.name, message=text, refuse_time=timestamp(refusal.since))
    return message


def _explanation(kind: int, explained: Explanation) -> pb.XdsExplanation:
    resources = []
    for resource in explained.resources:
        fields = {"type": resource.kind.name, "name": resource.name, "version": resource.version}
        resources.append(ParseDict({**fields, "content": resource.content}, Struct()))
    return pb.XdsExplanation(
        kind=kind,  # type: ignore[arg-type]  # a number of the enum
        status=explained.verdict,
        reason=explained.reason,
        limitations=explained.limitations,
        resources=resources,
    )
