"""Terms are what protobuf reads; the table caches them in bounded memory."""

from typing import Any

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.rpc.fastpath import terms
from pointsman_server.rpc.fastpath.terms import UNSUPPORTED, SelectTerms, Terms, TermsTable

EXACT = pb.CONSISTENCY_FULLY_CONSISTENT


def encoded(**fields: Any) -> bytes:
    return pb.ResolveRequest(**fields).SerializeToString()


@pytest.mark.parametrize(
    ("fields", "supported"),
    [
        ({}, True),
        ({"consistency": pb.CONSISTENCY_MINIMIZE_LATENCY}, True),
        ({"consistency": EXACT}, True),
        ({"min_revision": 7, "epoch": "x" * 36}, True),
        ({"min_revision": 2**63 - 1}, True),
        ({"consistency": EXACT, "min_revision": 1}, False),
        ({"consistency": 99}, False),
        ({"min_revision": -1}, False),
        ({"epoch": "x" * 37}, False),
        ({"key": {}}, False),
    ],
)
def test_valid_terms_are_supported_and_others_are_left_to_the_chain(fields: dict[str, Any], supported: bool) -> None:
    decoded = Terms(encoded(**fields))
    assert decoded.supported == supported
    assert decoded.min_revision == fields.get("min_revision", 0)
    assert decoded.epoch == fields.get("epoch", "")
    assert decoded.from_store == (fields.get("consistency") == EXACT)


def test_a_batch_has_the_same_terms() -> None:
    batch = Terms(pb.BatchResolveRequest(min_revision=7, epoch="e", consistency=EXACT).SerializeToString())
    assert (batch.min_revision, batch.epoch, batch.from_store) == (7, "e", True)


def test_decoded_terms_are_cached_and_no_terms_need_no_decoding() -> None:
    table, some = TermsTable(), encoded(min_revision=7)
    assert table.get(some) is None
    assert table.decode(some).min_revision == 7
    known, none = table.get(some), table.get(b"")
    assert known
    assert known.min_revision == 7
    assert none
    assert none.supported


@pytest.mark.parametrize("unusual", [b"\xff", b"\x10", encoded(epoch="x" * terms.MAX_BYTES)])
def test_malformed_and_long_terms_are_unsupported_and_not_cached(unusual: bytes) -> None:
    table = TermsTable()
    assert table.decode(unusual) is UNSUPPORTED
    assert table.get(unusual) is None
    assert not UNSUPPORTED.supported


def test_the_table_drops_the_oldest_terms_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "MAX_REMEMBERED", 3)
    table, some = TermsTable(), [encoded(min_revision=number) for number in range(1, 4)]
    for each in some:
        table.decode(each)
    assert table.get(b"") is None
    assert all(map(table.get, some))


# Of a Select, whose fields have other numbers


@pytest.mark.parametrize(
    ("fields", "supported"),
    [
        ({}, True),
        ({"consistency": EXACT}, True),
        ({"min_revision": 7, "epoch": "x" * 36}, True),
        ({"consistency": EXACT, "min_revision": 1}, False),
        ({"consistency": 99}, False),
        ({"min_revision": -1}, False),
        ({"epoch": "x" * 37}, False),
        ({"as_of": {"revision": 1}}, False),
        ({"sticky_key": "x"}, False),
        ({"tenant": "x"}, False),
    ],
)
def test_terms_of_a_select(fields: dict[str, Any], supported: bool) -> None:
    decoded = SelectTerms(pb.SelectRequest(**fields).SerializeToString())
    assert decoded.supported == supported
    assert decoded.min_revision == fields.get("min_revision", 0)
    assert decoded.epoch == fields.get("epoch", "")
    assert decoded.from_store == (fields.get("consistency") == EXACT)


@pytest.mark.parametrize("field", [b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x22\x00", b"\x42\x00", b"\x48\x01"])
def test_a_field_that_comes_again_empty_is_left_to_the_chain(field: bytes) -> None:
    """It would replace the one that was cut off."""
    assert not SelectTerms(field).supported
    assert not TermsTable(SelectTerms).decode(b"\x28\x01" + field).supported
