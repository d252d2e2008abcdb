"""ClientStatusDiscoveryService: what each client has of each resource, for the standard tools.

envoyproxy.io/docs/envoy/latest/api-v3/service/status/v3/csds.proto
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.clients.text import HIDDEN, printable
from pointsman_server.xds.clients.visibility import Visibility
from pointsman_server.xds.protocol import messages
from pointsman_server.xds.session import ResourceState, Status

ClientStatusRequest = messages.message("envoy.service.status.v3.ClientStatusRequest")
ClientStatusResponse = messages.message("envoy.service.status.v3.ClientStatusResponse")

# A response has no pages, and a client of gRPC takes 4 MB.
MOST_RESOURCES = 5_000
# Clients that are compared, and resources that are added, in a turn: about half a millisecond.
MATCHED_IN_A_TURN, ADDED_IN_A_TURN = 200, 50
# envoy.service.status.v3.ConfigStatus and envoy.admin.v3.ClientResourceStatus.
STATUSES = {Status.SYNCED: (1, 3), Status.NOT_SENT: (2, 1), Status.STALE: (3, 1), Status.REFUSED: (4, 4)}


async def client_status(request: Any, clients: Clients, caller: Caller, fair_share: FairShare) -> Any:
    """Answer a ClientStatusRequest: the resources that ``caller`` may see, of the clients that its matchers name.

    Raises InvalidField for a matcher of another kind than text, or where the answer would be too large.
    """
    matches, visibility = _matcher(request.node_matchers), Visibility(caller)
    response, count = ClientStatusResponse(), 0
    for number, client in enumerate(clients):
        if number % MATCHED_IN_A_TURN == 0:
            await fair_share.take()
        if not matches(client.stream.client.node):
            continue
        every = list(client.stream.session.states())
        states = [each for each in every if visibility.is_own(client) or visibility.may_see(each.name)]
        if not states and not visibility.is_own(client):
            continue
        count += len(states)
        if count > MOST_RESOURCES:
            text = f"match clients with more than {MOST_RESOURCES} resources: match fewer by node_id"
            raise InvalidField([FieldViolation("node_matchers", text)])
        described = client.stream.client
        config = response.config.add(client_scope=clients.name_of(client))
        config.node.id, config.node.user_agent_name = printable(described.node), printable(described.agent)
        # What a client says may name what the caller may not see.
        hides, with_contents = len(states) < len(every), not request.exclude_resource_contents
        for start in range(0, len(states), ADDED_IN_A_TURN):
            await fair_share.take()
            _add(config, client, states[start : start + ADDED_IN_A_TURN], hides=hides, with_contents=with_contents)
    return response


def _add(config: Any, client: Connected, states: Iterable[ResourceState], *, hides: bool, with_contents: bool) -> None:
    refusals = client.refusals
    for state in states:
        resource = config.generic_xds_configs.add(type_url=state.kind, name=state.name, version_info=state.version)
        resource.config_status, resource.client_status = STATUSES[state.status]
        if state.status is Status.REFUSED:
            resource.error_state.details = HIDDEN if hides else printable(state.text)
            if state.kind in refusals:
                resource.error_state.last_update_attempt.FromDatetime(refusals[state.kind].since)
        if with_contents:
            resource.xds_config.CopyFrom(client.stream.content(state.kind, state.name))


def _matcher(matchers: Sequence[Any]) -> Callable[[str], bool]:
    """Return what tells whether any of ``matchers`` matches the id of a node; without matchers all match."""
    checks = [_check(number, matcher) for number, matcher in enumerate(matchers)]
    return lambda node: not checks or any(check(node) for check in checks)


def _check(number: int, matcher: Any) -> Callable[[str], bool]:
    pattern = matcher.node_id.WhichOneof("match_pattern")
    if matcher.node_metadatas or pattern not in _TESTS:
        text = "must match node_id by exact, prefix, suffix or contains"
        raise InvalidField([FieldViolation(f"node_matchers[{number}]", text)])
    wanted, test, folds = getattr(matcher.node_id, pattern), _TESTS[pattern], matcher.node_id.ignore_case
    return lambda node: test(node.lower(), wanted.lower()) if folds else test(node, wanted)


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}
