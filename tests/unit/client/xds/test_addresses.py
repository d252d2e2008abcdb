"""xds.addresses: where xDS is."""

import pytest

from pointsman.xds import addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:50052", ("localhost", 50052)),
        ("dns:///pointsman.internal:443", ("pointsman.internal", 443)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:50052", ("::1", 50052)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert addresses.parse(text) == expected
    assert str(addresses.parse(text)) == text.removeprefix("dns:///")


@pytest.mark.parametrize(
    "text", ["", ":1", "a:b", "a:70000", "::1:50052", "unix:/run/x", "a/b:1", "http://a:1", "a b:1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        addresses.parse(text)


def test_a_port_may_be_left_out_where_there_is_a_default() -> None:
    with pytest.raises(ValueError, match="it has no port"):
        addresses.parse("localhost")
    assert addresses.parse("localhost", 7) == ("localhost", 7)
    assert addresses.parse("localhost:0", 7) == ("localhost", 0)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("localhost:50051", "localhost:50052"),
        ("pointsman.internal", "pointsman.internal:50052"),
        ("dns:///pointsman.internal:443", "pointsman.internal:50052"),
        ("[::1]:50051", "[::1]:50052"),
    ],
)
def test_by_default_xds_is_beside_the_server(server: str, expected: str) -> None:
    assert addresses.beside(server) == expected


@pytest.mark.parametrize("server", ["unix:/run/pointsman", "ipv4:127.0.0.1:1,127.0.0.1:2"])
def test_a_target_that_does_not_tell_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="where is xDS"):
        addresses.beside(server)


def test_a_list_is_separated_by_commas_or_blanks() -> None:
    assert addresses.split(" a:1, b:2 a:1,,c:3 ") == ("a:1", "b:2", "c:3")
    assert addresses.split(" ") == ()


@pytest.mark.parametrize("target", ["dns:///a:1", "[::1]:1", "unix:/run/x", "unix-abstract:x", "ipv4:10.0.0.1:1"])
def test_other_targets_of_grpc_are_taken_as_they_are(target: str) -> None:
    assert addresses.split(f"a:1 {target}") == ("a:1", target)


@pytest.mark.parametrize("text", ["a", "a:", "a:0", "a:70000", "http://a:1", "xds:///a:1", "::1:50052"])
def test_what_grpc_would_take_for_another_address_is_refused(text: str) -> None:
    """It would add port 443, or look for a host of that name."""
    with pytest.raises(ValueError, match=f"{text}' must be HOST:PORT"):
        addresses.split(f"b:1,{text}")
