"""Logs: one line per event on stderr, from us and from the libraries alike.

Ours are events with values: ``log.info("relay published", revision=7)``. The request id of the call that a task works
for joins every line that it writes; so do context variables (``structlog.contextvars.bind_contextvars``).
"""

import logging
import sys
from typing import Any, Literal, cast

import structlog
from structlog.processors import ExceptionRenderer, JSONRenderer, TimeStamper, add_log_level, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from pointsman_server.config.types import mask_credentials
from pointsman_server.telemetry import current_call
from pointsman_server.telemetry.tracing import spans

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

# Their records below a warning are noise.
NOISY = ("alembic", "asyncio", "confluent_kafka", "grpc", "httpcore", "httpx", "psycopg", "redis", "uvicorn")

_FIRST = ("timestamp", "level", "logger", "event")
# Deeper values are written as text, which also ends self-referencing ones.
_MAX_DEPTH = 8


def configure(level: Level = "info", log_format: Format = "auto") -> None:
    """Send everything of at least ``level`` to stderr: ``auto`` is console on a terminal, else JSON.

    Call it at the start of the process. Loggers made before follow; those that were bound to values do not.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    verbosity.debug = threshold <= logging.DEBUG
    chain = _console_chain() if is_console(log_format) else _json_chain()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, add_call, add_log_level, _name, *chain],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    look_up_again()
    _configure_stdlib(threshold, chain)


def is_console(log_format: Format) -> bool:
    """Say whether lines are written for people, and not as JSON."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def get_logger(name: str) -> FilteringBoundLogger:
    """Get the logger called ``name``. Lines below the level cost next to nothing."""
    return cast("FilteringBoundLogger", _loggers.setdefault(name, _Logger(name)))


class _Logger:
    """A logger that looks up each of its methods once per configuration.

    structlog's own proxy does it at every call: a microsecond, also for lines that are not written.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        found = getattr(structlog.get_logger(logger_name=self._name).bind(), method)
        if structlog.is_configured():
            setattr(self, method, found)
        return found

    def forget(self) -> None:
        """Drop the methods that were looked up, after a new configuration."""
        self.__dict__ = {"_name": self._name}


_loggers: dict[str, _Logger] = {}


def look_up_again() -> None:
    """Have every logger follow what structlog is configured to now. ``configure`` does this itself."""
    for logger in _loggers.values():
        logger.forget()


class Verbosity:
    """What ``configure`` has set: whether lines of level debug are written. Cheaper to ask than a logger."""

    debug = False


verbosity = Verbosity()


def add_call(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Add the request id of the call that this line is written for, if there is one; with tracing on, its trace too."""
    call = current_call.current.get()
    if call is not None:
        event_dict.setdefault("request_id", call.request_id)
    if found := spans.ids():
        event_dict.setdefault("trace_id", found[0])
        event_dict.setdefault("span_id", found[1])
    return event_dict


def mask_secrets(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Mask the passwords of URLs, wherever in a line they are.

    The second line of defence: no code logs a secret on purpose, but drivers quote URLs in their errors.
    """
    return {key: _masked(value, _MAX_DEPTH) for key, value in event_dict.items()}


def _masked(value: object, depth: int) -> object:
    if isinstance(value, str):
        return mask_credentials(value)
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, dict) and depth:
        return {str(key): _masked(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_masked(item, depth - 1) for item in value]
    return mask_credentials(repr(value) if isinstance(value, BaseException) else str(value))


def _name(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    # structlog has an argument of its own called logger, so the name could not be bound as that.
    if "logger_name" in event_dict:
        event_dict["logger"] = event_dict.pop("logger_name")
    return event_dict


def _order(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Put first what people look for first."""
    return {key: event_dict.pop(key) for key in _FIRST if key in event_dict} | dict(event_dict)


def _json_chain() -> list[Processor]:
    # Never the local variables of a traceback: they hold whatever the code held.
    tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=30))
    return [TimeStamper(fmt="iso", utc=True), tracebacks, mask_secrets, _order, JSONRenderer()]


def _console_chain() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [TimeStamper(fmt="%H:%M:%S.%f", utc=False), format_exc_info, mask_secrets, renderer]


def _configure_stdlib(threshold: int, chain: list[Processor]) -> None:
    """Write what libraries log through ``logging`` the same way."""
    *enrich, render = chain
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.contextvars.merge_contextvars, add_call, add_log_level, add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *enrich, render],
        )
    )
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
