"""The hash chain of the audit log: how to compute it, and how to verify it. No I/O.

Every change has one row, and every row has one link::

    hash(n) = SHA-256( hash(n - 1) || canonical(n) )

- ``canonical(n)`` are the bytes of the ``RouteChange`` of revision n, as protobuf's deterministic serialisation writes
  them: fields in the order of their numbers, the labels sorted by their keys, defaults left out, nothing unknown. The
  epoch and the revision are among the fields. The bytes are stored as they were hashed, so verification encodes
  nothing: it needs only SHA-256 and the stored bytes, in any language.
- ``hash(n - 1)`` are the 32 raw bytes of the previous link.
- Each epoch has its own chain, because after a restore revisions are assigned again. Its first link is at the revision
  before the first of the epoch (0 for the first epoch) and has no change: it is SHA-256 of the epoch's text in UTF-8.

A log that was compacted up to revision n begins with ``hash(n)``, whose change is gone; an *anchor* repeats it, so that
the rest still verifies.

Changes are stored in the order of their arrival; the chain covers them up to the first missing revision. So a link
depends only on the rows up to it: any number of servers that extend the chain compute the same one.
"""

from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.message import DecodeError

from pointsman.v1 import route_pb2
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.routes import Change


def canonical(change: Change) -> bytes:
    """Encode a change for storage and hashing."""
    return change_to_message(change).SerializeToString(deterministic=True)


def genesis(epoch: str) -> bytes:
    """Compute the first link of an epoch."""
    return sha256(epoch.encode()).digest()


def link(previous: bytes, change: bytes) -> bytes:
    """Compute the link of a change from the previous link and the canonical bytes."""
    return sha256(previous + change).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """A revision in the audit log: the canonical bytes of its change and its link; None where one is missing.

    ``anchor``: the link again, as the compaction kept it that deleted what is up to this revision.
    """

    epoch: str
    revision: int
    change: bytes | None
    hash: bytes | None
    anchor: bytes | None = None


@dataclass(slots=True)
class Chain:
    """The verified part of the chain of one epoch.

    It covers ``rows`` rows, of the revisions ``first`` to ``last``; ``head`` is the last link, None before the first.
    ``waiting`` counts rows that it does not cover yet, of which ``next_waiting`` is the first after ``last``.
    """

    epoch: str
    rows: int = 0
    first: int = 0
    last: int = 0
    head: bytes | None = None
    waiting: int = 0
    next_waiting: int = 0


class BrokenChain(Exception):
    """The log was changed after it was written; names the first row that shows it."""

    def __init__(self, epoch: str, revision: int, problem: str) -> None:
        super().__init__(f"revision {revision} of epoch {epoch}: {problem}")
        self.epoch = epoch
        self.revision = revision
        self.problem = problem


MISSING = "missing revision: its row is gone"
CHANGED = "changed content"
WRONG_LINK = "wrong link"


class Verifier:
    """Recomputes the chains: call ``feed`` with every entry in the order of epoch and revision, then ``finish``.

    ``chains`` has the result. Both methods raise BrokenChain at the first row that was changed.
    """

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self._suspect: Entry | None = None

    def feed(self, entry: Entry) -> None:
        """Verify the next entry. Raises BrokenChain."""
        if self._suspect is not None:
            raise _judge(self._suspect, entry)
        if not self.chains or self.chains[-1].epoch != entry.epoch:
            self.chains.append(Chain(entry.epoch))
        chain = self.chains[-1]
        if entry.hash is None and entry.anchor is not None:
            raise _broken(entry, f"{WRONG_LINK}: it has none, and the rest of a compacted chain continues it")
        if entry.hash is None:
            _wait(chain, entry.revision)
        elif chain.head is None:
            _begin(chain, entry, entry.hash)
        else:
            self._extend(chain, chain.head, entry, entry.hash)

    def finish(self) -> None:
        """End the verification: there are no more entries. Raises BrokenChain."""
        if self._suspect is not None:
            raise _broken(self._suspect, f"{CHANGED} or {WRONG_LINK}: no row follows that could tell which")

    def _extend(self, chain: Chain, head: bytes, entry: Entry, stored: bytes) -> None:
        following = chain.last + 1
        if entry.revision != following:
            problem = f"{WRONG_LINK}: it has none" if chain.next_waiting == following else MISSING
            raise BrokenChain(entry.epoch, following, problem)
        if entry.change is None:
            raise _broken(entry, MISSING)
        if not _names(entry.change, entry.epoch, entry.revision):
            raise _broken(entry, f"{CHANGED}: it is not the change of this revision")
        if link(head, entry.change) != stored:
            # The next row shows whether the content or the link was changed.
            self._suspect = entry
            return
        chain.rows, chain.last, chain.head = chain.rows + 1, entry.revision, stored


def _wait(chain: Chain, revision: int) -> None:
    chain.waiting += 1
    if chain.head is not None and not chain.next_waiting:
        chain.next_waiting = revision


def _begin(chain: Chain, entry: Entry, stored: bytes) -> None:
    if entry.anchor is None and stored != genesis(entry.epoch):
        raise _broken(entry, f"{WRONG_LINK}: the chain must begin with the SHA-256 of the epoch")
    if entry.anchor is not None and stored != entry.anchor:
        raise _broken(entry, f"{WRONG_LINK}: the chain must begin with the link that its compaction kept")
    chain.first, chain.last, chain.head = entry.revision + 1, entry.revision, stored


def _names(change: bytes, epoch: str, revision: int) -> bool:
    """Return whether ``change`` decodes to a change of this epoch and revision."""
    try:
        message = route_pb2.RouteChange.FromString(change)
    except DecodeError:
        return False
    return (message.epoch, message.revision) == (epoch, revision)


def _judge(suspect: Entry, following: Entry) -> BrokenChain:
    """Return what is wrong with a row whose link does not match, from the row after it."""
    fits = (
        (following.epoch, following.revision) == (suspect.epoch, suspect.revision + 1)
        and suspect.hash is not None
        and following.change is not None
        and link(suspect.hash, following.change) == following.hash
    )
    return _broken(suspect, CHANGED if fits else f"{WRONG_LINK}: it is not the hash of what is before it")


def _broken(entry: Entry, problem: str) -> BrokenChain:
    return BrokenChain(entry.epoch, entry.revision, problem)
