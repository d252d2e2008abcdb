"""docs/xds.md: its links lead somewhere, and the variables that it names are there."""

import re
from pathlib import Path

import pytest

from pointsman.xds import bootstrap as grpc_bootstrap
from pointsman.xds import configuration
from pointsman_server.config.environment import variable
from pointsman_server.config.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "xds.md"
TEXT = PAGE.read_text()


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_a_link_leads_somewhere(link: str) -> None:
    target, _, anchor = link.partition("#")
    path = (PAGE.parent / target).resolve() if target else PAGE
    assert path.is_file()
    assert not anchor or anchor in anchors(path)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"POINTSMAN_\w+", TEXT))))
def test_a_variable_is_one_of_the_server_or_of_clients(name: str) -> None:
    of_clients = ("SERVER", "XDS_SERVER", "CA_FILE", "CERT_FILE", "KEY_FILE", "TOKEN_FILE")
    assert name in {variable(each) for each in Settings.model_fields} | {f"POINTSMAN_{each}" for each in of_clients}


def test_the_variables_of_grpc_are_those_that_are_set() -> None:
    ours = {
        configuration.FILE_VARIABLE,
        configuration.CONTENT_VARIABLE,
        grpc_bootstrap.CALL_CREDENTIALS_VARIABLE,
        grpc_bootstrap.SYSTEM_ROOTS_VARIABLE,
        grpc_bootstrap.SERVER_NAME_VARIABLE,
    }
    logging = {"GRPC_VERBOSITY", "GRPC_TRACE", "GRPC_GO_LOG_SEVERITY_LEVEL", "GRPC_GO_LOG_VERBOSITY_LEVEL"}
    assert set(re.findall(r"\bGRPC_[A-Z_]+", TEXT)) == ours | logging
