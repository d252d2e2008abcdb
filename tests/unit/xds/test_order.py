"""What is sent first, what waits for what, and for how long."""

import pytest

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.session import Push
from tests.support.xds_world import ALL, CDS, EDS, LDS, RDS, Client, sent


def test_clusters_come_first_and_routes_when_they_are_accepted(client: Client) -> None:
    first = client.change("a", listener=1, route=1, cluster=1, endpoints=1)
    assert [push.kind for push in first] == [CDS, EDS, LDS]
    clusters, endpoints, listeners = first
    assert client.answer(listeners) == client.answer(endpoints) == []
    assert sent(client.answer(clusters)) == [(RDS, ["a"])]


def test_routes_do_not_wait_for_clusters_that_are_refused(client: Client) -> None:
    (clusters,) = client.change("a", route=1, cluster=1)
    assert sent(client.answer(clusters, "no")) == [(RDS, ["a"])]


@pytest.mark.parametrize("kind", [CDS, EDS])
def test_routes_do_not_wait_for_clusters_of_other_names(client: Client, kind: ResourceType) -> None:
    client.settle(client.ask(RDS, "a", "b"))
    client.settle(client.ask(kind, "a", "b"))
    client.change("b", cluster=1, endpoints=1)
    assert sent(client.change("a", route=1)) == [(RDS, ["a"])]


def test_a_first_route_waits_for_nothing(client: Client) -> None:
    """The client asks for its clusters when it has the route."""
    client.ask(CDS, "a", "b")
    assert sent(client.ask(RDS, "a", "b")) == [(RDS, ["b"])]


def test_nothing_waits_for_ever_for_a_client_that_does_not_answer(client: Client) -> None:
    client.change("a", route=1, cluster=1)
    assert client.session.holds
    assert client.session.take() == []
    assert sent(client.session.take(hold=False)) == [(RDS, ["a"])]
    assert not client.session.holds


def test_what_closes_comes_before_its_clusters(client: Client) -> None:
    assert [push.kind for push in client.change("a", live=False, cluster=1, endpoints=1)] == [RDS, CDS, EDS]


def test_the_clusters_of_what_closes_wait_until_that_can_be_sent(client: Client) -> None:
    (under_way,) = client.change("a", route=1)
    assert client.change("a", live=False, cluster=1, endpoints=1) == []
    assert client.session.holds
    assert [push.kind for push in client.answer(under_way)] == [RDS, CDS, EDS]


def test_the_endpoints_of_what_closes_wait_too(client: Client) -> None:
    (under_way,) = client.change("a", route=1)
    assert client.change("a", live=False, endpoints=1) == []
    assert [push.kind for push in client.answer(under_way)] == [RDS, EDS]


def test_other_clusters_do_not_wait_for_what_closes(client: Client) -> None:
    client.settle(client.ask(EDS, "a", "b"))
    client.settle(client.ask(CDS, "a", "b"))
    client.change("a", route=1)
    client.change("a", live=False)
    assert [push.kind for push in client.change("b", cluster=1, endpoints=1)] == [CDS, EDS]


def test_what_opens_comes_after_its_endpoints(client: Client) -> None:
    client.settle(client.change("a", live=False, endpoints=1))
    (endpoints,) = client.change("a", live=True, endpoints=2)
    assert endpoints.kind is EDS
    assert sent(client.answer(endpoints)) == [(RDS, ["a"])]


def test_endpoints_wait_for_the_cluster_that_changes_with_them(client: Client) -> None:
    (under_way,) = client.change("a", cluster=1)
    assert client.change("a", cluster=2, endpoints=2) == []
    assert client.session.holds
    assert [push.kind for push in client.answer(under_way)] == [CDS, EDS]


def test_endpoints_that_a_cluster_needs_no_more_stay(client: Client) -> None:
    """The cluster is of another type now, and uses them until that is ready."""
    moved = client.change("a", moved=True)
    assert sent(moved) == [(CDS, ["a"])]
    client.settle(moved)
    assert client.session.settled
    client.session.check()
    assert client.session.take() == []


def test_endpoints_of_what_is_not_live_are_emptied(client: Client) -> None:
    assert [push.kind for push in client.change("a", live=False, moved=True)] == [RDS, CDS, EDS]


def test_a_cluster_that_needs_no_endpoints_is_sent_none_that_are_empty_but_to_who_has_none(client: Client) -> None:
    client.settle(client.change("a", moved=True))
    client.ask(EDS)
    assert sent(client.ask(EDS, "a")) == [(EDS, ["a"])]


# Envoy


def test_a_changed_cluster_of_an_envoy_needs_its_endpoints_again(envoy: Client) -> None:
    assert sent(envoy.change("a", cluster=1)) == [(CDS, ["a", "b"]), (EDS, ["a"])]


def test_endpoints_under_way_are_sent_again_after_a_changed_cluster(envoy: Client) -> None:
    (under_way,) = envoy.change("a", endpoints=1)
    assert sent(envoy.change("a", cluster=1)) == [(CDS, ["a", "b"])]
    assert sent(envoy.answer(under_way)) == [(EDS, ["a"])]


def test_a_cluster_that_becomes_another_type_is_not_emptied(envoy: Client) -> None:
    assert [push.kind for push in envoy.change("a", moved=True)] == [CDS]


def test_the_clusters_of_other_clients_need_no_endpoints_again(client: Client) -> None:
    assert sent(client.change("a", cluster=1)) == [(CDS, ["a"])]


def test_the_route_of_all_waits_for_any_cluster(envoy: Client) -> None:
    clusters, endpoints = envoy.change("b", cluster=1)
    assert envoy.change("a", route=1) == []
    assert envoy.answer(endpoints) == []
    assert sent(envoy.answer(clusters)) == [(RDS, [ALL])]


def test_a_new_name_is_routed_to_when_it_is_there(envoy: Client) -> None:
    (clusters, listeners) = envoy.change("c")
    assert (clusters.kind, listeners.kind) == (CDS, LDS)
    endpoints = envoy.ask(EDS, "a", "b", "c")
    assert sent(endpoints) == [(EDS, ["c"])]
    assert envoy.answer(clusters) == []
    assert sent(envoy.answer(endpoints[0])) == [(RDS, [ALL])]


def test_a_cluster_is_removed_after_the_routes_to_it(envoy: Client) -> None:
    del envoy.world.roots["b"]
    envoy.session.change(("b",))
    listeners, routes = envoy.session.take()
    assert (listeners.kind, routes.kind) == (LDS, RDS)
    assert sent(envoy.answer(routes)) == [(CDS, ["a"])]


def test_a_cluster_is_not_removed_while_the_client_refuses_the_routes(envoy: Client) -> None:
    del envoy.world.roots["b"]
    envoy.session.change(("b",))
    _, routes = envoy.session.take()
    assert envoy.answer(routes, "no") == []
    clusters, *_ = envoy.change("a", cluster=1)
    assert sent([clusters]) == [(CDS, ["a", "b"])]


def test_a_cluster_that_comes_back_before_it_is_removed_stays(envoy: Client) -> None:
    root = envoy.world.roots.pop("b")
    envoy.session.change(("b",))
    listeners, routes = envoy.session.take()
    envoy.world.roots["b"] = root
    envoy.session.change(("b",))
    assert {push.kind for push in envoy.settle([listeners, routes])} == {LDS, RDS}
    assert envoy.session.count(CDS) == 2
    assert envoy.session.settled


def test_after_a_reconnect_the_route_of_all_waits_for_clusters_too(envoy: Client) -> None:
    """An Envoy asks for all types at once, in any order, and has routes already."""
    again = Client(envoy.world, warms=True)
    assert again.ask(RDS, ALL, version="1") == []
    assert again.session.holds
    (clusters,) = again.ask(CDS, version="1")
    assert clusters.kind is CDS
    assert sent(again.answer(clusters)) == [(RDS, [ALL])]


def test_an_envoy_that_starts_is_sent_the_route_at_once(envoy: Client) -> None:
    assert sent(Client(envoy.world, warms=True).ask(RDS, ALL)) == [(RDS, [ALL])]


def introduced(client: Client) -> list[Push]:
    """Divide the calls of ``a`` so that they are led to a cluster that the client does not know."""
    client.world.needs["a"] = ((CDS, "a~~2"), (EDS, "a~~2"))
    return client.change("a", route=1)


def test_clusters_that_are_new_in_a_route_are_introduced_before_calls_are_led_to_them(client: Client) -> None:
    (introduction,) = introduced(client)
    assert introduction.resources == [client.world.resource(RDS, "a").introduction]
    assert client.answer(introduction) == []
    assert client.session.holds
    assert not client.session.settled
    (clusters,) = client.ask(CDS, "a", "a~~2")
    assert client.answer(clusters) == []
    (endpoints,) = client.ask(EDS, "a", "a~~2")
    (whole,) = client.answer(endpoints)
    assert whole.resources == [client.world.resource(RDS, "a")]
    assert client.answer(whole) == []
    assert client.session.settled


def test_clusters_that_a_client_has_are_not_introduced_again(client: Client) -> None:
    client.settle(introduced(client))
    client.settle(client.ask(CDS, "a", "a~~2"))
    client.settle(client.ask(EDS, "a", "a~~2"))
    (whole,) = client.change("a", route=2)
    assert whole.resources == [client.world.resource(RDS, "a")]


def test_clusters_that_the_route_before_did_not_name_are_introduced_again(client: Client) -> None:
    """The client has forgotten them with that route, and its request that says so may be under way."""
    client.settle(introduced(client))
    client.settle(client.ask(CDS, "a", "a~~2"))
    client.settle(client.ask(EDS, "a", "a~~2"))
    client.world.needs.clear()
    client.settle(client.change("a", route=2))
    (introduction,) = introduced(client)
    assert introduction.resources == [client.world.resource(RDS, "a").introduction]
    (whole,) = client.settle(client.answer(introduction))
    assert whole.resources == [client.world.resource(RDS, "a")]


def test_a_first_route_needs_no_introduction(client: Client) -> None:
    client.world.needs["b"] = ((CDS, "b~~2"),)
    (first,) = client.ask(RDS, "a", "b")
    assert first.resources == [client.world.resource(RDS, "b")]


def test_a_client_that_asks_for_nothing_new_waits_a_while_alone(client: Client) -> None:
    (introduction,) = introduced(client)
    client.answer(introduction)
    (whole,) = client.session.take(hold=False)
    assert whole.resources == [client.world.resource(RDS, "a")]


def marked(client: Client) -> Client:
    """Let ``a`` close, so that the client has its marker, and open again at a host that is to be resolved."""
    client.settle(client.change("a", live=False))
    client.settle(client.ask(CDS, "a", "a~~k0"))
    client.world.prepared.add("a")
    return client


def test_what_opens_is_prepared_until_the_client_has_the_marker_no_more(client: Client) -> None:
    (clusters,) = marked(client).change("a", live=True, cluster=1)
    assert clusters.kind is CDS
    (preparation,) = client.answer(clusters)
    assert preparation.resources == [client.world.resource(RDS, "a").preparation]
    assert client.answer(preparation) == []
    assert client.session.holds
    assert not client.session.settled
    (whole,) = client.ask(CDS, "a")
    assert whole.resources == [client.world.resource(RDS, "a")]
    assert client.settle([whole]) == [whole]
    assert client.session.settled


def test_a_client_that_keeps_the_marker_waits_a_while_alone(client: Client) -> None:
    client.settle(marked(client).change("a", live=True))
    (whole,) = client.session.take(hold=False)
    assert whole.resources == [client.world.resource(RDS, "a")]


def test_a_client_without_the_marker_is_not_prepared(client: Client) -> None:
    client.settle(marked(client).ask(CDS, "a"))
    (whole,) = client.change("a", live=True)
    assert whole.resources == [client.world.resource(RDS, "a")]


def test_what_closes_while_it_is_prepared_closes_at_once(client: Client) -> None:
    (preparation,) = marked(client).change("a", live=True)
    client.answer(preparation)
    client.world.prepared.clear()
    (closed,) = client.change("a", live=False, route=1)
    assert closed.resources == [client.world.resource(RDS, "a")]


def test_what_closes_needs_no_introduction(client: Client) -> None:
    (introduction,) = introduced(client)
    client.answer(introduction)
    client.world.needs.clear()
    (closed,) = client.change("a", live=False)
    assert closed.resources == [client.world.resource(RDS, "a")]
    assert client.settle([closed]) == [closed]
    assert client.session.settled


# Reconnects: what a client has of another stream


def again(client: Client) -> Client:
    return Client(client.world, warms=client.session._warms)


def test_what_closed_meanwhile_comes_before_its_clusters(client: Client) -> None:
    client.world.lingers = True
    client.world.set("a", live=False)
    resumed = again(client)
    assert resumed.ask(EDS, "a", version="1") == []
    assert resumed.ask(CDS, "a", version="1") == []
    (routes,) = resumed.ask(RDS, "a", version="1")
    assert routes.kind is RDS
    assert sent(resumed.answer(routes)) == [(CDS, ["a"]), (EDS, ["a"])]


def test_what_changed_meanwhile_waits_for_its_clusters_in_any_order(client: Client) -> None:
    client.world.set("a", route=1, cluster=1, endpoints=1)
    resumed = again(client)
    assert resumed.ask(RDS, "a", version="1") == []
    assert resumed.ask(EDS, "a", version="1") == []
    clusters, endpoints = resumed.ask(CDS, "a", version="1")
    assert (clusters.kind, endpoints.kind) == (CDS, EDS)
    assert resumed.answer(clusters) == []
    assert sent(resumed.answer(endpoints)) == [(RDS, ["a"])]


def test_endpoints_that_a_cluster_needed_no_more_meanwhile_stay_until_that_is_accepted(client: Client) -> None:
    client.world.set("a", moved=True)
    resumed = again(client)
    resumed.ask(EDS, "a", version="1")
    resumed.ask(RDS, "a", version="1")
    (clusters,) = resumed.ask(CDS, "a", version="1")
    # It is sent them all the same in the end: it may have none, and wait for them.
    assert sent(resumed.answer(clusters)) == [(EDS, ["a"])]


def test_what_opened_meanwhile_is_prepared(client: Client) -> None:
    client.world.prepared.add("a")
    resumed = again(client)
    resumed.ask(RDS, "a", version="1")
    sent_first = resumed.settle(resumed.ask(CDS, "a", "a~~k0", version="1"))
    assert sent_first[-1].resources == [client.world.resource(RDS, "a").preparation]
    (whole,) = resumed.ask(CDS, "a")
    assert whole.resources == [client.world.resource(RDS, "a")]


def test_a_cluster_that_an_envoy_was_given_before_is_removed_after_the_routes_to_it(envoy: Client) -> None:
    envoy.world.lingers = True
    del envoy.world.roots["b"]
    resumed = again(envoy)
    assert resumed.ask(CDS, version="1") == []
    assert sent(resumed.ask(EDS, "a", "b", version="1")) == []
    first = resumed.ask(RDS, ALL, version="1")
    assert sent(first) == [(CDS, ["a", "b"]), (EDS, ["a"])]
    routes, endpoints, clusters = resumed.settle(first)[2:]
    assert sent([routes, endpoints, clusters]) == [(RDS, [ALL]), (EDS, ["b"]), (CDS, ["a"])]
