"""Settings from environment variables and flags, and back into variables. Nothing else reads the environment."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from pointsman_server.config.describe import explain, text
from pointsman_server.config.names import PREFIX, SettingSource, variable
from pointsman_server.config.rules import SettingsError
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import nearest

# Names that may stand in the same environment without being settings of the server: those of the `pointsman` command
# and of the test runner, and those by which our processes configure each other.
OF_OTHERS = frozenset(
    {
        "POINTSMAN_CA_FILE",
        "POINTSMAN_CERT_FILE",
        "POINTSMAN_KEY_FILE",
        "POINTSMAN_METRICS_URL",
        "POINTSMAN_REQUIRE_ALL",
        "POINTSMAN_SERVER",
        "POINTSMAN_XDS_SERVER",
        "POINTSMAN_TIMEOUT",
        "POINTSMAN_TLS",
        "POINTSMAN_TOKEN",
        "POINTSMAN_TOKEN_FILE",
    }
)
INTERNAL_PREFIX = "POINTSMAN_INTERNAL_"
# Kubernetes sets variables for every Service of the namespace, and the Service is likely named pointsman.
SERVICE_LINK = re.compile(r"POINTSMAN_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")
SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


def load(environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Build the settings: ``overrides`` (attribute to value; None is no override) over ``environ`` over defaults.

    Without ``environ`` this reads the environment of the process. An empty variable counts as not set.
    Raises SettingsError, which names every problem.
    """
    environ = os.environ if environ is None else environ
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    problems = _unknown_variables(environ)
    try:
        settings = merge({"environment": _from_environ(environ), "flag": flags})
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(problems)
    return settings


def merge(layers: Mapping[SettingSource, Mapping[str, object]]) -> Settings:
    """Build settings from layers of attribute values, of which later ones win. Raises SettingsError."""
    values: dict[str, Any] = {}
    sources: dict[str, SettingSource] = {}
    for source, layer in layers.items():
        values.update(layer)
        sources.update(dict.fromkeys(layer, source))
    try:
        return Settings.model_validate(values, context=sources)
    except ValidationError as error:
        # Not chained: pydantic's error holds the values, the secret ones too.
        raise SettingsError(explain(error, sources)) from None


def with_engines(settings: Settings, urls: Mapping[str, str]) -> Settings:
    """Copy the settings, with the engines (attribute to URL) that this process started itself."""
    layers: dict[SettingSource, dict[str, object]] = {"default": {}, "environment": {}, "flag": {}, "embedded": {}}
    for name in settings.model_fields_set:
        layers[settings.sources.get(name, "default")][name] = getattr(settings, name)
    layers["embedded"] |= urls
    return merge(layers)


def as_environ(settings: Settings) -> dict[str, str]:
    """Return the variables from which ``load`` builds the same settings in a child process.

    The secrets are in clear: never print them.
    """
    return {variable(name): text(getattr(settings, name)) for name in sorted(settings.model_fields_set)}


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    names = {variable(name): name for name in Settings.model_fields}
    return {names[key]: value for key, value in environ.items() if key in names and value.strip()}


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {variable(name) for name in Settings.model_fields} | OF_OTHERS
    return [
        f"{name} is not a setting{_known_name_near(name, known)}"
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and name not in known and not _is_of_others(name, value)
    ]


def _known_name_near(name: str, known: Iterable[str]) -> str:
    # The prefix is not compared: nearly all names share it, so nearly all would be near.
    short_names = {other.removeprefix(PREFIX): other for other in known}
    near = nearest(name.removeprefix(PREFIX), short_names)
    if near is None:
        return ": remove it; `python -m pointsman_server.config.describe` lists the settings"
    return f": did you mean {short_names[near]}?"


def _is_of_others(name: str, value: str) -> bool:
    if name.startswith(INTERNAL_PREFIX) or SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and bool(SERVICE_LINK_VALUE.fullmatch(value))
