"""The hash chain, and what becomes of logs that somebody has touched."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from pointsman.v1 import route_pb2
from pointsman_server.audit.hash_chain import BrokenChain, Entry, Verifier, canonical, genesis, link
from pointsman_server.domain.codec import change_from_message
from tests.support.changes import make_change

Log = list[Entry]
CANONICAL_1 = "cb000e9085ea8a8404b686f54f8a2a59481106d0474cfbafc9a234f5fd5b47ea"


def make_log(last: int, epoch: str = "e1", first: int = 1) -> Log:
    """A sound log of one epoch."""
    digest = genesis(epoch)
    log = [Entry(epoch, first - 1, None, digest)]
    for revision in range(first, last + 1):
        change = canonical(make_change(revision, epoch=epoch))
        digest = link(digest, change)
        log.append(Entry(epoch, revision, change, digest))
    return log


def verify(log: Log) -> Verifier:
    verifier = Verifier()
    for entry in log:
        verifier.feed(entry)
    verifier.finish()
    return verifier


# How it is made


def test_a_link_is_the_sha_256_of_the_link_before_and_the_change() -> None:
    change = canonical(make_change(1))
    first = hashlib.sha256(b"e1").digest()
    assert genesis("e1") == first
    assert link(first, change) == hashlib.sha256(first + change).digest()


def test_the_canonical_bytes_do_not_depend_on_the_order_of_labels() -> None:
    change = make_change(1)
    assert change.after
    names = [f"label-{number}" for number in range(50)]
    ways = [
        replace(change, after=replace(change.after, labels=dict.fromkeys(order, "x"))) for order in (names, names[::-1])
    ]
    assert canonical(ways[0]) == canonical(ways[1])


def test_the_canonical_bytes_hold_the_whole_change() -> None:
    change = make_change(7, epoch="e2", trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert change_from_message(route_pb2.RouteChange.FromString(canonical(change))) == change
    assert canonical(change) != canonical(replace(change, epoch="e3"))


def test_the_canonical_bytes_stay_what_they_are() -> None:
    # What is stored was hashed in this form: another one would end every chain.
    assert hashlib.sha256(canonical(make_change(1))).hexdigest() == CANONICAL_1


# How it is checked


def test_a_sound_log_verifies() -> None:
    log = make_log(5)
    (chain,) = verify(log).chains
    assert (chain.rows, chain.first, chain.last, chain.head, chain.waiting) == (5, 1, 5, log[-1].hash, 0)


def test_no_log_is_sound() -> None:
    assert verify([]).chains == []


def test_each_epoch_has_a_chain_of_its_own_and_revisions_may_come_again() -> None:
    chains = verify(make_log(5, "e1") + make_log(6, "e2", first=3)).chains
    assert [(chain.epoch, chain.rows, chain.first, chain.last) for chain in chains] == [
        ("e1", 5, 1, 5),
        ("e2", 4, 3, 6),
    ]


def test_rows_that_the_chain_does_not_cover_yet_wait() -> None:
    log = make_log(5)
    (chain,) = verify([*log[:3], replace(log[4], hash=None), replace(log[5], hash=None)]).chains
    assert (chain.last, chain.waiting) == (2, 2)
    # Of an epoch that the history does not know nothing is chained.
    (chain,) = verify([replace(entry, hash=None) for entry in log[1:]]).chains
    assert (chain.rows, chain.head, chain.waiting) == (0, None, 5)


def changed_byte(log: Log) -> None:
    change = log[3].change or b""
    at = change.index(b"ann")
    log[3] = replace(log[3], change=change[:at] + b"bob" + change[at + 3 :])


def garbage(log: Log) -> None:
    log[3] = replace(log[3], change=b"\xff\xff")


def swapped_rows(log: Log) -> None:
    log[3], log[4] = replace(log[3], change=log[4].change), replace(log[4], change=log[3].change)


def swapped_links(log: Log) -> None:
    log[3], log[4] = replace(log[3], hash=log[4].hash), replace(log[4], hash=log[3].hash)


def removed_row(log: Log) -> None:
    del log[3]


def removed_change(log: Log) -> None:
    log[3] = replace(log[3], change=None)


def removed_link(log: Log) -> None:
    log[3] = replace(log[3], hash=None)


def wrong_link(log: Log) -> None:
    log[3] = replace(log[3], hash=bytes(32))


def fork(log: Log) -> None:
    """Another history from revision 2 on, of which somebody took over all from revision 3 on."""
    digest = link(log[1].hash or b"", canonical(make_change(2, "forged")))
    for revision in range(3, 6):
        change = canonical(make_change(revision, "forged"))
        digest = link(digest, change)
        log[revision] = Entry("e1", revision, change, digest)


def of_another_epoch(log: Log) -> None:
    log[3] = replace(log[3], change=canonical(make_change(3, epoch="e2")))


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (changed_byte, "changed content"),
        (garbage, "changed content"),
        (swapped_rows, "changed content"),
        (of_another_epoch, "changed content"),
        (removed_row, "missing revision"),
        (removed_change, "missing revision"),
        (removed_link, "wrong link"),
        (wrong_link, "wrong link"),
        (swapped_links, "wrong link"),
        (fork, "changed content"),
    ],
)
def test_the_first_row_that_is_not_as_it_was_written_is_named(tamper: Callable[[Log], None], problem: str) -> None:
    log = make_log(3, "e0") + make_log(6)
    part = log[4:]
    tamper(part)
    with pytest.raises(BrokenChain, match=f"revision 3 of epoch e1: {problem}"):
        verify(log[:4] + part)


def test_of_the_last_row_it_is_not_told_which() -> None:
    log = make_log(3)
    changed_byte(log)
    with pytest.raises(BrokenChain, match="revision 3 of epoch e1: changed content or wrong link"):
        verify(log)


def test_a_chain_must_begin_with_its_epoch() -> None:
    log = make_log(3)
    with pytest.raises(BrokenChain, match="revision 1 of epoch e1: wrong link: the chain must begin"):
        verify(log[1:])
    with pytest.raises(BrokenChain, match="revision 0 of epoch e1: wrong link: the chain must begin"):
        verify([replace(log[0], hash=genesis("e2")), *log[1:]])
