"""How xDS clients, and what they are sent, read to people and as JSON."""

from collections.abc import Sequence
from typing import Any

from pointsman.xds.results import XdsClient, XdsClients, XdsExplanation, XdsName

_MOST_NAMES_SHOWN = 3


def clients_document(workers: Sequence[XdsClients]) -> dict[str, Any]:
    """Return the clients of a server, of those of its workers that answered."""
    return {
        "revision": revision_of(workers),
        "workers": workers[-1].worker_count,
        "workers_answered": len(workers),
        "clients": [_client(client) for each in workers for client in each.clients],
    }


def revision_of(workers: Sequence[XdsClients]) -> int:
    """Return the revision that every worker has."""
    return min(each.revision for each in workers)


def _client(client: XdsClient) -> dict[str, Any]:
    return {
        "id": client.id,
        "node_id": client.node_id,
        "user_agent": client.user_agent,
        "kind": client.kind.value,
        "address": client.address,
        "subject": client.subject,
        "connect_time": client.connect_time.isoformat(),
        "acknowledged_revision": client.acknowledged_revision,
        "names": list(client.names),
        "name_count": client.name_count,
        "refusals": [
            {
                "resource_type": refusal.resource_type,
                "message": refusal.message,
                "refuse_time": refusal.time.isoformat(),
            }
            for refusal in client.refusals
        ],
    }


def explanation_document(name: XdsName, *, resources: bool) -> dict[str, Any]:
    """Return what clients are sent for a name."""
    return {
        "name": name.name,
        "revision": name.revision,
        "explanations": [_explanation(each, resources=resources) for each in name.explanations],
    }


def _explanation(explanation: XdsExplanation, *, resources: bool) -> dict[str, Any]:
    found = {
        "kind": explanation.kind.value,
        "status": explanation.status.name,
        "reason": explanation.reason,
        "limitations": list(explanation.limitations),
    }
    return found | ({"resources": [dict(each) for each in explanation.resources]} if resources else {})


def names_text(names: Sequence[str], count: int) -> str:
    """Return the first names, and how many more there are."""
    more = count - len(names[:_MOST_NAMES_SHOWN])
    return " ".join(names[:_MOST_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
