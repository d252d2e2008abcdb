"""The rules of the protocol, one by one: docs of Envoy, "xDS REST and gRPC protocol"."""

import pytest

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.session import MOST_TEXT, Outcome, Push, Session, Status
from tests.support.xds_world import CDS, EDS, LDS, RDS, Client, World, request, sent

# Subscriptions


def test_a_first_request_is_answered_whatever_its_version_and_nonce_are() -> None:
    client = Client(World())
    assert sent(client.ask(RDS, "a", nonce="of another stream", version="7")) == [(RDS, ["a"])]


def test_a_name_that_is_asked_for_twice_is_sent_once() -> None:
    client = Client(World())
    assert sent(client.ask(CDS, "a", "a", "b")) == [(CDS, ["a", "b"])]
    assert client.session.roots == {"a": 1, "b": 1}


def test_an_unknown_type_is_ignored(client: Client) -> None:
    secrets = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    assert client.session.receive(request(secrets, "a")) is Outcome.IGNORED
    assert client.session.take() == []


@pytest.mark.parametrize("kind", [RDS, EDS])
def test_a_further_name_is_sent_alone(client: Client, kind: ResourceType) -> None:
    assert sent(client.ask(kind, "a", "b")) == [(kind, ["b"])]


@pytest.mark.parametrize("kind", [LDS, CDS])
def test_a_further_name_is_sent_with_all_others(client: Client, kind: ResourceType) -> None:
    assert sent(client.ask(kind, "a", "b")) == [(kind, ["a", "b"])]


@pytest.mark.parametrize("kind", ResourceType)
def test_a_name_that_is_dropped_is_sent_when_it_is_asked_for_again(client: Client, kind: ResourceType) -> None:
    assert client.ask(kind) == []
    assert sent(client.ask(kind, "a")) == [(kind, ["a"])]


def test_a_dropped_name_is_no_more_watched(client: Client) -> None:
    client.ask(RDS, "b")
    assert client.session.roots == {"a": 3, "b": 1}
    for kind in ResourceType:
        client.ask(kind)
    assert client.session.roots == {}
    assert client.change("a", listener=1, route=1, cluster=1, endpoints=1) == []


def test_a_name_that_was_dropped_and_asked_for_while_a_response_was_under_way_is_sent_again(client: Client) -> None:
    """The request without the name bears the nonce of the response before; the client has forgotten the resource."""
    (first,) = client.ask(EDS, "a", "b")
    client.answer(first)
    (under_way,) = client.change("b", endpoints=1)
    client.session.receive(request(EDS, "b", nonce=first.nonce))
    client.session.receive(request(EDS, "a", "b", nonce=first.nonce))
    assert client.session.take() == []
    client.names[EDS] = ("a", "b")
    assert sent(client.answer(under_way)) == [(EDS, ["a"])]


def test_an_answer_that_comes_after_a_later_one_is_out_of_order(client: Client) -> None:
    (first,) = client.ask(EDS, "a", "b")
    client.answer(first)
    assert client.session.receive(request(EDS, "c", nonce="0")) is Outcome.IGNORED
    assert client.session.receive(request(EDS, "a", nonce="0", error="no")) is Outcome.IGNORED
    assert client.session.count(EDS) == 2
    assert not client.session.refusals


# Answers


def test_what_changes_before_an_answer_waits_and_is_merged(client: Client) -> None:
    (push,) = client.change("a", route=1)
    assert client.change("a", route=2) == client.change("a", route=3) == []
    (merged,) = client.answer(push)
    assert merged.resources == [client.world.resource(RDS, "a")]
    assert client.answer(merged) == []


def test_what_changes_back_before_an_answer_is_sent_again(client: Client) -> None:
    (push,) = client.change("a", route=1)
    client.change("a", route=0)
    assert sent(client.answer(push)) == [(RDS, ["a"])]


def test_what_changes_back_before_it_is_sent_is_not_sent(client: Client) -> None:
    client.session.change(client.world.set("a", route=1))
    client.session.change(client.world.set("a", route=0))
    assert client.session.take() == []


def test_an_answer_is_taken_once(client: Client) -> None:
    (push,) = client.change("a", route=1)
    said = request(RDS, "a", nonce=push.nonce)
    assert client.session.receive(said) is Outcome.ACKNOWLEDGED
    assert client.session.receive(said) is Outcome.SUBSCRIBED


def test_an_error_without_a_response_to_refuse_is_no_refusal(client: Client) -> None:
    assert client.session.receive(request(RDS, "a", error="no")) is Outcome.SUBSCRIBED
    assert client.session.settled


def test_a_refused_resource_is_not_sent_again_until_it_changes(client: Client) -> None:
    (push,) = client.change("a", endpoints=1)
    assert client.answer(push, "no such address") == []
    assert client.session.refusals == {EDS: "no such address"}
    assert not client.session.settled
    client.session.check()
    assert client.session.take() == []
    (again,) = client.change("a", endpoints=2)
    client.answer(again)
    assert client.session.settled


def test_what_was_refused_and_changes_back_is_sent(client: Client) -> None:
    """The client may have taken a part of what it refused: only its text says which."""
    (push,) = client.change("a", endpoints=1)
    client.answer(push, "no")
    assert sent(client.change("a", endpoints=0)) == [(EDS, ["a"])]


def test_a_refusal_lasts_while_other_resources_are_accepted(client: Client) -> None:
    client.settle(client.ask(EDS, "a", "b"))
    (bad,) = client.change("a", endpoints=1)
    client.answer(bad, "no")
    client.settle(client.change("b", endpoints=1))
    assert client.session.refusals == {EDS: "no"}
    assert client.ask(EDS, "b") == []
    assert client.session.settled


def test_a_response_with_everything_that_is_accepted_ends_all_refusals(client: Client) -> None:
    client.settle(client.ask(CDS, "a", "b"))
    (bad,) = client.change("a", cluster=1)
    client.answer(bad, "no")
    assert client.session.refusals == {CDS: "no"}
    client.settle(client.change("b", cluster=1))
    assert client.session.settled


def test_a_client_that_refuses_is_sent_what_it_subscribes_to_then(client: Client) -> None:
    (bad,) = client.change("a", endpoints=1)
    client.names[EDS] = ("a", "b")
    assert sent(client.answer(bad, "no")) == [(EDS, ["b"])]


def test_of_a_refusal_a_bounded_text_is_kept(client: Client) -> None:
    (bad,) = client.change("a", endpoints=1)
    client.answer(bad, "x" * 10_000)
    assert client.session.refusals == {EDS: "x" * MOST_TEXT}
    (bad,) = client.change("a", endpoints=2)
    client.answer(bad, "")
    assert client.session.refusals == {EDS: "no text"}


def test_every_nonce_begins_with_that_of_the_stream_and_is_used_once() -> None:
    session = Session(World(), nonces="s")
    nonces = []
    for kind in ResourceType:
        session.receive(request(kind, "a"))
        nonces += [push.nonce for push in session.take()]
    assert nonces == ["s1", "s2", "s3", "s4"]


# Wildcards


def test_the_first_requests_without_names_ask_for_all() -> None:
    client = Client(World())
    client.world.set("a", slots=2)
    (push,) = client.ask(CDS)
    assert sorted(each.name for each in push.resources) == ["a", "a~~1"]
    assert client.session.wants_all
    client.answer(push)
    assert client.ask(CDS) == []


def test_a_client_that_asks_for_all_is_answered_even_if_there_is_nothing() -> None:
    client = Client(World())
    (push,) = client.ask(CDS)
    assert push.resources == []
    client.answer(push)
    assert sent(client.change("a")) == [(CDS, ["a"])]


@pytest.mark.parametrize("named", [("*",), ("a",), ("*", "a")])
def test_without_names_after_names_nothing_is_asked_for(named: tuple[str, ...]) -> None:
    client = Client(World())
    client.world.set("a")
    client.settle(client.ask(CDS, *named))
    assert client.ask(CDS) == []
    assert not client.session.wants_all
    assert client.session.count(CDS) == 0


@pytest.mark.parametrize("kind", [RDS, EDS])
def test_only_listeners_and_clusters_can_all_be_asked_for(kind: ResourceType) -> None:
    client = Client(World())
    client.world.set("a")
    assert client.ask(kind) == client.ask(kind, "*") == []
    assert not client.session.wants_all


def test_a_name_beside_the_wildcard_is_sent_even_if_the_client_has_it(envoy: Client) -> None:
    pushes = envoy.ask(CDS, "*", "a", "other")
    assert sent(pushes) == [(CDS, ["a", "b", "other"]), (EDS, ["a"])]
    envoy.settle(pushes)
    envoy.settle(envoy.ask(CDS, "*", "a", "b", "other"))
    assert envoy.ask(CDS, "a", "b") == []
    assert envoy.session.count(CDS) == 2


def test_a_named_resource_stays_when_it_is_given_no_more_to_all(envoy: Client) -> None:
    envoy.settle(envoy.ask(CDS, "*", "a"))
    del envoy.world.roots["a"]
    envoy.session.change(("a",))
    envoy.settle()
    assert envoy.session.count(CDS) == 2
    envoy.ask(CDS, "*")
    assert envoy.session.count(CDS) == 1


# Reconnects


def resumed(client: Client, kind: ResourceType, *names: str, version: str) -> list[Push]:
    """Ask as a client that has a version of another stream; what it has waits for its routes, but not long."""
    assert client.ask(kind, *names, version=version) == []
    return client.session.take(hold=False)


def test_a_client_that_asked_for_less_and_for_all_again_on_a_new_stream_is_sent_all() -> None:
    """It has forgotten resources, and its version is still that of the last response."""
    client = Client(World())
    client.world.set("a")
    (had,) = client.settle(client.ask(CDS, "*"))
    assert client.ask(CDS) == []
    assert sent(resumed(Client(client.world), CDS, "*", version=had.version)) == [(CDS, ["a"])]


def test_what_an_envoy_took_of_a_response_that_it_refused_is_mended_on_a_new_stream(envoy: Client) -> None:
    """It takes each Cluster by itself, and its version is that of the response before."""
    (had, *_) = envoy.settle(envoy.change("a", cluster=1))
    envoy.world.set("b", cluster=1)
    (refused, *_) = envoy.change("a", cluster=2)
    envoy.answer(refused, "b is invalid")
    envoy.world.set("a", cluster=1)
    envoy.world.set("b", cluster=0)
    assert sent(resumed(Client(envoy.world, warms=True), CDS, version=had.version)) == [(CDS, ["a", "b"])]


def test_a_client_that_asks_by_name_is_sent_all() -> None:
    """It may have dropped the name, and forgotten the resource, while there was no stream."""
    world = World()
    (had,) = Client(world).ask(EDS, "a")
    assert sent(resumed(Client(world), EDS, "a", version=had.version)) == [(EDS, ["a"])]
    (had,) = Client(world).ask(CDS, "*", "a")
    assert sent(resumed(Client(world), CDS, "*", "a", version=had.version)) == [(CDS, ["a"])]


def test_versions_are_those_of_another_server_and_of_any_order() -> None:
    first, second = Client(World()), Client(World())
    (one,) = first.ask(CDS, "a", "b")
    (other,) = second.ask(CDS, "b", "a")
    assert one.version == other.version


# For others


def test_the_state_of_every_resource_is_shown(client: Client) -> None:
    client.settle(client.ask(EDS, "a", "b"))
    (bad,) = client.change("a", endpoints=1)
    client.answer(bad, "no")
    client.change("b", endpoints=1)
    client.session.change(client.world.set("a", cluster=1))
    client.session.receive(request(RDS, "a", "c"))
    states = {(each.kind, each.name): (each.status, each.text) for each in client.session.states()}
    assert states == {
        (LDS, "a"): (Status.SYNCED, ""),
        (RDS, "a"): (Status.SYNCED, ""),
        (RDS, "c"): (Status.NOT_SENT, ""),
        (CDS, "a"): (Status.STALE, ""),
        (EDS, "a"): (Status.REFUSED, "no"),
        (EDS, "b"): (Status.STALE, ""),
    }


def test_what_a_client_may_have_can_change_without_any_route(envoy: Client) -> None:
    envoy.world.set("a", cluster=1)
    envoy.world.set("c")
    del envoy.world.roots["b"]
    envoy.session.check()
    taken = envoy.session.take()
    assert dict(sent(taken))[CDS] == ["a", "b", "c"]
    envoy.settle(taken)
    envoy.world.set("c", slots=2)
    envoy.session.check()
    assert dict(sent(envoy.session.take()))[CDS] == ["a", "c", "c~~1"]


def test_a_cluster_that_waits_and_is_leaving_is_not_sent_any_more(envoy: Client) -> None:
    first = envoy.change("a", cluster=1)
    assert envoy.change("a", cluster=2) == []
    del envoy.world.roots["a"]
    envoy.session.change(("a",))
    pushes = sent(envoy.settle([*first, *envoy.session.take()]))
    assert [names for kind, names in pushes if kind is CDS] == [["a", "b"], ["b"]]


def test_a_change_gives_a_client_that_asks_for_all_nothing_of_other_changes(envoy: Client) -> None:
    envoy.world.set("c")
    envoy.session.change(envoy.world.set("a", cluster=1))
    assert dict(sent(envoy.session.take()))[CDS] == ["a", "b"]


def test_a_cluster_that_was_leaving_and_is_there_again_is_sent_as_it_is_now(envoy: Client) -> None:
    first = envoy.change("a", route=1)
    before = envoy.world.roots.pop("a")
    envoy.session.change(("a",))
    envoy.world.roots["a"] = before
    sent_again = [*first, *envoy.change("a", cluster=1)]
    (clusters,) = [push for push in envoy.settle(sent_again) if push.kind is CDS]
    assert clusters.resources[0] == envoy.world.resource(CDS, "a")


def test_what_lingers_and_is_sent_meanwhile_is_not_sent_again(client: Client) -> None:
    client.world.lingers = True
    client.settle(client.change("a", live=False))
    lingering = client.session.lingering()
    client.ask(EDS)
    client.settle(client.ask(EDS, "a"))
    client.session.release(lingering)
    (clusters,) = client.session.take()
    assert sent([clusters]) == [(CDS, ["a"])]
    assert client.answer(clusters) == []


def test_a_cluster_that_closes_while_it_is_leaving_stays_until_the_routes_to_it_have_gone(envoy: Client) -> None:
    envoy.world.lingers = True
    del envoy.world.roots["a"]
    envoy.world.set("c")
    envoy.session.change(("a", "c"))
    (clusters, *_) = envoy.session.take()
    assert sent([clusters]) == [(CDS, ["a", "b", "c"])]
    assert not clusters.resources[0].closed
    assert sent(envoy.settle([clusters]))[-1] == (CDS, ["b", "c"])


def test_a_cluster_that_lingered_and_is_open_again_while_it_is_leaving_is_sent_as_it_is_now(envoy: Client) -> None:
    envoy.settle(envoy.change("a", slots=2))
    envoy.world.lingers = True
    first = envoy.change("a", live=False)
    del envoy.world.roots["a"]
    envoy.session.change(("a",))
    pushes = envoy.settle([*first, *envoy.change("a", cluster=1)])
    clusters = [resource for push in pushes if push.kind is CDS for resource in push.resources]
    assert "a~~1" in {each.name for each in clusters}
    assert clusters == [envoy.world.resource(CDS, each.name) for each in clusters]


def test_a_cluster_that_lingered_and_is_leaving_stays_until_the_routes_to_it_have_gone(envoy: Client) -> None:
    envoy.world.lingers = True
    (routes,) = envoy.change("a", live=False, route=1)
    lingering = envoy.session.lingering()
    del envoy.world.roots["a"]
    envoy.session.change(("a",))
    envoy.session.release(lingering)
    released = envoy.session.take()
    assert sent(released) == [(LDS, ["b"])]
    assert sent(envoy.settle([routes, *released]))[-1] == (CDS, ["b"])
