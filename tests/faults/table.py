"""The table of faults."""

import signal
from collections.abc import Sequence

from tests.faults.faulting import Fault
from tests.faults.injections import (
    anyone,
    consumer,
    kafka_pauses,
    kafka_restarts,
    leader,
    one_broker_killed,
    postgres_cut,
    postgres_disconnects,
    postgres_pauses,
    postgres_pools_exhausted,
    postgres_restarts,
    postgres_slows,
    redis_evicts,
    redis_flushes,
    redis_pauses,
    redis_read_only_by_others,
    redis_restarts,
    redis_slows,
    server_ends,
    server_pauses,
    server_restarts_without_store,
    servers_restart_in_turn,
    xds_cut,
)
from tests.faults.messages import consumers_rewind, poisoned
from tests.faults.moments import killed_after_commit, killed_before_commit, paused_in_a_fill, two_leaders
from tests.faults.restores import database_restored
from tests.faults.rig import MESSAGE_TIMEOUT

LONGER_THAN_MESSAGES_WAIT = (MESSAGE_TIMEOUT + 1, MESSAGE_TIMEOUT + 2)

FAULTS: Sequence[Fault] = (
    Fault("server killed", "server", server_ends(anyone, signal.SIGKILL)),
    Fault("server killed before the commit", "server", killed_before_commit()),
    Fault("server killed after the commit, before the answer", "server", killed_after_commit()),
    Fault("server killed before the commit of a change set", "server", killed_before_commit(of_sets=True)),
    Fault("server killed after the commit of a change set", "server", killed_after_commit(of_sets=True)),
    Fault("server paused", "server", server_pauses(anyone), (2.0, 4.0)),
    Fault("server paused in the middle of fills", "server", paused_in_a_fill, (1.5, 3.0)),
    Fault("server terminated", "server", server_ends(anyone, signal.SIGTERM)),
    Fault("server restarted without PostgreSQL", "server", server_restarts_without_store, (3.0, 4.0)),
    Fault("servers restarted in turn", "server", servers_restart_in_turn, (0.1, 0.3)),
    Fault("xDS clients without any server", "xDS", xds_cut, (2.0, 3.0)),
    Fault("Redis killed, back empty", "Redis", redis_restarts, (1.0, 3.0), degrades=True),
    Fault("Redis flushed", "Redis", redis_flushes),
    Fault("Redis paused", "Redis", redis_pauses, (1.0, 3.0), degrades=True),
    Fault("Redis slow", "Redis", redis_slows, (2.0, 3.0), degrades=True),
    Fault("Redis evicts", "Redis", redis_evicts, (2.0, 4.0)),
    Fault("Redis cut from a server with writers", "Redis", redis_read_only_by_others, (2.0, 4.0), degrades=True),
    Fault("PostgreSQL restarted", "PostgreSQL", postgres_restarts(signal.SIGINT)),
    Fault("PostgreSQL crashed", "PostgreSQL", postgres_restarts(signal.SIGQUIT)),
    Fault("PostgreSQL paused", "PostgreSQL", postgres_pauses, (2.0, 4.0)),
    Fault("PostgreSQL slow", "PostgreSQL", postgres_slows, (3.0, 4.0), writes=True),
    Fault("PostgreSQL cut from one server", "PostgreSQL", postgres_cut, (2.0, 4.0), writes=True),
    Fault("PostgreSQL's pools exhausted", "PostgreSQL", postgres_pools_exhausted, (2.5, 4.0)),
    Fault("PostgreSQL connections ended", "PostgreSQL", postgres_disconnects, writes=True),
    Fault("PostgreSQL restored to an older state", "PostgreSQL", database_restored, (2.0, 4.0), writes=True),
    Fault("Kafka killed past the timeout", "Kafka", kafka_restarts, LONGER_THAN_MESSAGES_WAIT),
    Fault("Kafka paused past the timeout", "Kafka", kafka_pauses, LONGER_THAN_MESSAGES_WAIT),
    Fault("one Kafka broker of three killed", "Kafka", one_broker_killed, (4.0, 6.0), brokers=3),
    Fault("relay leader killed", "server", server_ends(leader, signal.SIGKILL)),
    Fault("relay leader paused", "server", server_pauses(leader), (3.0, 5.0)),
    Fault("two relay leaders", "Kafka", two_leaders, (0.3, 0.8)),
    Fault("busiest consumer killed", "server", server_ends(consumer, signal.SIGKILL)),
    Fault("consumers set back to the beginning", "Kafka", consumers_rewind),
    Fault("poison in the topic", "Kafka", poisoned),
)
