"""Names, roots, and the clusters that they mean."""

import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.domain.routes import RouteKey
from pointsman_server.xds.names import Part, Role, cluster_name, is_family, key_of, part_of, root_name, root_of, shared

ROUTE = RouteKey("team-a", "payments", "prod", "v2")
NAMES = {"v2~prod~payments~team-a": ROUTE, "prod~payments~team-a": ROUTE.family_key}
PARTS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)
NEW_STYLE = "xdstp://pointsman/envoy.config.listener.v3.Listener/"


@pytest.mark.parametrize(("name", "key"), NAMES.items())
def test_a_name_is_a_key_backwards(name: str, key: RouteKey) -> None:
    assert (key_of(name), root_name(key)) == (key, name)


@given(tenant=PARTS, service=PARTS, env=PARTS, version=PARTS | st.just(""))
@settings(deadline=None)
def test_every_key_has_a_name_of_its_own(tenant: str, service: str, env: str, version: str) -> None:
    key = RouteKey(tenant, service, env, version)
    name = root_name(key)

    assert key_of(name) == key
    assert root_of(name) == root_of(NEW_STYLE + name) == name
    assert is_family(name) is not bool(version)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a~b",
        "a~b~c~d~e",
        "~b~c",
        "a~b~",
        "a~~c",
        "v2~prod~payments~team/a",
        "v2~prod~payments~team a",
        "-v2~prod~payments~team-a",
        f"{'v' * 64}~prod~payments~team-a",
        "prod~payments~team-a\n",
        "team-a/payments/prod/v2",
        "PROD~päyments~team-a",
        "*",
    ],
)
def test_other_texts_name_nothing(name: str) -> None:
    assert key_of(name) is None


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("xdstp://pointsman/envoy.config.listener.v3.Listener/a~b~c", "a~b~c"),
        ("xdstp:///envoy.config.listener.v3.Listener/a~b~c", "a~b~c"),
        ("xdstp://pointsman/envoy.config.listener.v3.Listener/a~b~c?env=prod#f", "a~b~c"),
        # Of another type: no name of ours, and so its own root.
        ("xdstp://x/envoy.config.cluster.v3.Cluster/a~b~c", "xdstp://x/envoy.config.cluster.v3.Cluster/a~b~c"),
        ("xdstp:a~b~c", "xdstp:a~b~c"),
        ("a~b~c~~1", "a~b~c"),
        ("a~b~c~~m1", "a~b~c"),
        ("a~b~c~~~~", "a~b~c"),
        ("", ""),
    ],
)
def test_every_name_has_a_root(name: str, root: str) -> None:
    assert root_of(name) == root


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a~b~c", Part(Role.SLOT, 0)),
        ("a~b~c~~7", Part(Role.SLOT, 7)),
        ("a~b~c~~m0", Part(Role.MEMBER, 0)),
        ("a~b~c~~f12", Part(Role.FALLBACK, 12)),
        ("a~b~c~~k0", Part(Role.MARKER, 0)),
        ("a~b~c~~0-0123abcd", Part(Role.SLOT, 0, "0123abcd")),
        # No cluster of ours is called so.
        ("a~b~c~~0-0123ABCD", Part(Role.SLOT, 0)),
        ("a~b~c~~", Part(Role.SLOT, 0)),
        ("a~b~c~~01", Part(Role.SLOT, 0)),
        ("a~b~c~~x1", Part(Role.SLOT, 0)),
        ("a~b~c~~1~~2", Part(Role.SLOT, 0)),
        ("a~b~c~~99999", Part(Role.SLOT, 0)),
        ("a~b~c~~²", Part(Role.SLOT, 0)),
    ],
)
def test_a_suffix_means_a_cluster(name: str, part: Part) -> None:
    assert part_of(name) == part


@given(role=st.sampled_from(Role), number=st.integers(0, 9999), tag=st.from_regex("([0-9a-f]{8})?", fullmatch=True))
@settings(deadline=None)
def test_every_cluster_has_a_name_of_its_own(role: Role, number: int, tag: str) -> None:
    name = cluster_name("a~b~c", Part(role, number, tag))

    assert (root_of(name), part_of(name)) == ("a~b~c", (role, number, tag))


def test_equal_names_are_one_object_and_are_dropped_when_others_are_asked_for() -> None:
    name = "v1~prod~payments~team-a"
    assert shared("".join(name)) is shared(name[:3] + name[3:].lower())
    asked = _Name("asked once")
    kept = weakref.ref(asked)
    shared(asked)
    del asked
    for number in range(shared.cache_info().maxsize or 0):
        shared(f"another {number}")
    assert kept() is None


class _Name(str):
    __slots__ = ("__weakref__",)
