"""Judge the settings by the machine, and what callers are checked by."""

from collections.abc import Iterator

from pointsman_server.config.settings import Settings
from pointsman_server.diagnosis.finding import Finding, error, ok, warning
from pointsman_server.runtime.machine import Machine

# Native memory of one worker besides the heap that is bounded, and with a full local cache.
WORKER_MEGABYTES = 250


def judge_machine(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """Find settings that ask for more than there is."""
    found = list(_machine_problems(settings, machine))
    yield from found or [ok("machine", f"{machine.cpus} CPUs and {machine.memory >> 20} MiB: enough for the settings")]


def _machine_problems(settings: Settings, machine: Machine) -> Iterator[Finding]:
    if settings.workers > machine.cpus:
        yield warning(
            "machine",
            f"POINTSMAN_WORKERS is {settings.workers}, and there are {machine.cpus} CPUs: workers wait for each other",
            f"set POINTSMAN_WORKERS to {machine.cpus}",
        )
    wanted = settings.workers * (settings.max_heap_megabytes + WORKER_MEGABYTES)
    have = machine.memory >> 20
    if wanted > have:
        each = max(0, have // settings.workers - WORKER_MEGABYTES)
        yield warning(
            "machine",
            f"{settings.workers} workers may take {wanted} MiB (POINTSMAN_MAX_HEAP_MEGABYTES), and there are {have}: "
            "the system may kill them",
            f"set POINTSMAN_MAX_HEAP_MEGABYTES to {each}, or give it more memory"
            if each
            else "give it more memory, or run fewer workers",
        )
    if machine.descriptors < settings.max_connections:
        yield warning(
            "machine",
            f"POINTSMAN_MAX_CONNECTIONS is {settings.max_connections}, and the process may have {machine.descriptors} "
            "file descriptors",
            "raise the hard limit (ulimit -Hn)",
        )


def judge_policy(problems: str, rules: int, *, configured: bool, authenticates: bool) -> Iterator[Finding]:
    """``problems``: what is wrong with the policy file; ``rules``: how many rules it has."""
    if not authenticates:
        yield warning("access", "nobody is authenticated: every caller may do everything", "see docs/security.md")
    elif problems:
        yield error("policy", problems, "mend the file: `pointsman-server policy check` names every problem")
    elif configured:
        yield ok("policy", f"{rules} rules")
    else:
        yield ok("policy", "no file: callers have the grants of their credentials")
