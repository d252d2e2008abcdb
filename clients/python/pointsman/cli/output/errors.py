"""How a command ends: every error becomes one or two lines, or one JSON document, and an exit code."""

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from pointsman import errors
from pointsman.cli.files.problems import InvalidFile
from pointsman.cli.lazy import LazyGroup
from pointsman.cli.output.documents import error_document
from pointsman.cli.output.exit_codes import ExitCode, exit_code
from pointsman.cli.output.streams import FileFailed, OutputFailed, discard, finish, finish_notes
from pointsman.cli.output.terminal import write_error

_MOST_PROBLEMS_SHOWN = 20
# Typer lists the choices of an option that is missing on lines of their own.
_BREAK = re.compile(r"\s*\n\s*")


class ReportingGroup(LazyGroup):
    """The commands of ``pointsman``; no error of theirs reaches the user as a traceback, unless it is a bug."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command and, if ``standalone_mode``, exit the process; as the base class does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        # The parsed options are gone once an error comes this far, so the arguments themselves say it.
        as_json = "--json" in (sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            finish()
        except Exception as error:  # noqa: BLE001 - unexpected ones are raised again
            code = report(error, as_json)
        finish_notes()
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def report(error: Exception, as_json: bool) -> int:
    """Write ``error`` to stderr and return the exit code. Raises what is not an error of the user or the server."""
    if isinstance(error, errors.PointsmanError):
        notes = list(getattr(error, "__notes__", ()))
        document = error_document(error) | ({"notes": notes} if notes else {})
        write_error(document, [_first_line(error), *notes, *_advice(error)], as_json)
        return exit_code(error)
    if isinstance(error, InvalidFile):
        write_error(_file_document(error), _file_lines(error), as_json)
        return ExitCode.USAGE
    if isinstance(error, typer.TyperException):
        message = _BREAK.sub(" ", error.format_message())
        if not message:  # the help was asked for by giving nothing, and is already there
            return error.exit_code
        write_error({"code": "USAGE", "message": message}, [f"error: {message}", *_usage(error)], as_json)
        return error.exit_code
    if isinstance(error, OutputFailed):
        return _output_failed(error, as_json)
    if isinstance(error, typer.Abort):
        write_error({"code": "ABORTED", "message": "stopped"}, ["stopped"], as_json)
        return ExitCode.FAILED
    raise error


def _output_failed(error: OutputFailed, as_json: bool) -> int:
    discard(sys.stdout)
    if not isinstance(error.__cause__, BrokenPipeError):  # a reader that has read enough, as head does, is no fault
        changed = "what the command was to change may have been changed: see pointsman history"
        notes = [] if isinstance(error, FileFailed) else [changed]
        document = {"code": "OUTPUT_FAILED", "message": str(error), "notes": notes}
        write_error(document, [f"error: {error}", *notes], as_json)
    return ExitCode.FAILED


def _first_line(error: errors.PointsmanError) -> str:
    request = f" (request {error.request_id})" if error.request_id else ""
    return f"error: {error.message or error.code.name}{request}"


def _advice(error: errors.PointsmanError) -> list[str]:
    """Say what to do, when the message alone does not."""
    if isinstance(error, errors.Unauthenticated):
        return [_about_credentials(error)]
    if isinstance(error, errors.PermissionDenied):
        return _about_permission(error)
    if isinstance(error, errors.ResourceExhausted) and error.retry_delay is not None:
        return [f"try again in {error.retry_delay.total_seconds():g} s"]
    if error.violations:  # they say it, of each route
        return []
    key = error.metadata.get("key", "KEY")
    advice: dict[type[errors.PointsmanError], str] = {
        errors.RouteNotFound: f"see what there is: pointsman list --tenant {key.partition('/')[0]}",
        errors.RouteInactive: f"make it live: pointsman activate {key}",
        errors.RouteExists: f"change it instead: pointsman update {key} --url URL",
        errors.NoActiveVersion: f"see its versions: {_listing(key)}",
        errors.AmbiguousVersion: f"divide its calls: pointsman traffic set {key} VERSION=PERCENT …",
        errors.TrafficNotFound: f"set it: pointsman traffic set {key} VERSION=PERCENT …",
        errors.TargetNotFound: f"see its versions: {_listing(key)}",
        errors.RouteInTraffic: f"see the traffic: pointsman traffic get {key.rpartition('/')[0]}",
        errors.RouteInUse: f"wait until nobody does: pointsman deactivate {key} --drain --wait=10m",
        errors.RevisionCompacted: "see the oldest change that is kept: pointsman history --oldest-first --limit 1",
        errors.RevisionMismatch: "read it again: pointsman get KEY, then decide",
        errors.Unavailable: "is the server up? Say where it is: --server HOST:PORT or POINTSMAN_SERVER",
        errors.DeadlineExceeded: "try again, with more time: --timeout SECONDS",
        errors.Unimplemented: "is this a Pointsman server, and not an older one? Check --server",
    }
    return [advice[type(error)]] if type(error) in advice else []


def _listing(family: str) -> str:
    tenant, _, rest = family.partition("/")
    service, _, env = rest.partition("/")
    return f"pointsman list --tenant {tenant} --service {service} --env {env}"


def _about_credentials(error: errors.Unauthenticated) -> str:
    """Say which credential was refused and why, as far as the server says, and what to do."""
    give = "--token-file FILE, POINTSMAN_TOKEN_FILE or POINTSMAN_TOKEN"
    if error.problem in {"", "missing"}:
        return f"give a token: {give}"
    what = f"{error.credential or 'credential'}, {error.problem}"
    if error.credential == "client certificate":
        return f"{what}: give another one: --cert-file and --key-file"
    kind = "a new one" if error.problem in {"expired", "revoked"} else "one that is meant for this server"
    return f"{what}: get {kind}, and give it by {give}"


def _about_permission(error: errors.PermissionDenied) -> list[str]:
    """Say what the caller lacks, as far as the server says."""
    where = "/".join(error.metadata[part] for part in ("tenant", "env") if error.metadata.get(part))
    place = f" in {where}" if where else ""
    return [f"ask who administers it for {error.permission}{place}"] if error.permission else []


def _usage(error: Exception) -> list[str]:
    context = getattr(error, "ctx", None)
    return [f"see: {context.command_path} --help"] if context else []


def _file_document(error: InvalidFile) -> dict[str, Any]:
    return {
        "code": "INVALID_FILE",
        "message": f"{error.name} cannot be used",
        "file": error.name,
        "problems": [{"line": problem.line, "message": problem.message} for problem in error.problems],
    }


def _file_lines(error: InvalidFile) -> list[str]:
    lines = str(error).splitlines()
    more = len(lines) - _MOST_PROBLEMS_SHOWN
    return [*lines[:_MOST_PROBLEMS_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
