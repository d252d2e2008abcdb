"""xds.options: what a bootstrap is made of."""

from pathlib import Path

import pytest

from pointsman.xds.options import ControlPlane, Node, Program, control_plane, node, token_problem

JWT_ALONE = "gRPC sends a JWT alone, whose exp it reads (gRFC A97), and no API key"
LINE_END = "it must hold the token alone, without a line end, which would be sent, too, and is refused"


def test_without_options_the_connection_is_in_plain_text() -> None:
    made = control_plane(("a:1",))
    assert made == ControlPlane(("a:1",))
    assert not made.by_tls
    assert list(made.files()) == []


@pytest.mark.parametrize("options", [{"tls": True}, {"ca_file": "ca.pem"}, {"cert_file": "c.pem", "key_file": "k.pem"}])
def test_tls_is_asked_for_or_implied_by_a_file(options: dict[str, object]) -> None:
    assert control_plane(("a:1",), **options).by_tls  # type: ignore[arg-type]


def test_paths_become_absolute_and_keep_their_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").symlink_to(tmp_path / "..data")
    made = control_plane(("a:1",), ca_file="ca.pem", token_file=Path("token"))
    assert (made.ca_file, made.token_file) == (f"{tmp_path}/ca.pem", f"{tmp_path}/token")
    assert list(made.files()) == [f"{tmp_path}/ca.pem", f"{tmp_path}/token"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tls": False, "ca_file": "ca.pem"}, "^TLS is switched off, but ca_file, cert_file or key_file is given$"),
        ({"cert_file": "c.pem"}, "^cert_file and key_file belong together: give both$"),
        ({"key_file": "k.pem"}, "^cert_file and key_file belong together: give both$"),
        ({"token_file": "token"}, "^token_file needs TLS: gRPC sends no token in plain text. Give tls or ca_file$"),
        ({"cert_file": "", "key_file": "k.pem"}, "^cert_file is empty"),
        ({"cert_file": "c.pem", "key_file": ""}, "^key_file is empty"),
        ({"token_file": ""}, "^token_file is empty"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        control_plane(("a:1",), **options)  # type: ignore[arg-type]


def test_a_node_has_an_id_and_as_much_of_a_locality_as_is_known() -> None:
    assert node("x", "") == Node("x")
    assert node("x", "eu/a/1") == Node("x", ("eu", "a", "1"))


@pytest.mark.parametrize(("node_id", "locality"), [("", "eu"), ("x", "a/b/c/d"), ("x", "/a"), ("x", "a//b")])
def test_a_malformed_node_is_refused(node_id: str, locality: str) -> None:
    with pytest.raises(ValueError, match=r"id|locality"):
        node(node_id, locality)


@pytest.mark.parametrize(
    ("program", "content", "problem"),
    [
        (Program.PYTHON, b"a.b.c", None),
        (Program.PYTHON, b"a.b.c\n", LINE_END),
        (Program.GO, b"a.b.c\n", None),
        (Program.GO, b"pmk_canary", JWT_ALONE),
        (Program.PYTHON, b"", JWT_ALONE),
        (Program.ENVOY, b"pmk_canary", None),
        (Program.ENVOY, b"pmk_canary\n", LINE_END),
    ],
)
def test_a_token_that_could_not_be_sent_is_told_without_repeating_it(
    program: Program, content: bytes, problem: str | None
) -> None:
    assert token_problem(program, content) == problem
