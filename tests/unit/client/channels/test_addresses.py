"""Which URLs gRPC can call, and where they lead."""

import pytest

from pointsman.channels.addresses import Address, address_of
from pointsman.errors import FailedPrecondition


@pytest.mark.parametrize(
    ("url", "target", "secure"),
    [
        ("https://payments.internal:8443", "payments.internal:8443", True),
        ("https://payments.internal", "payments.internal:443", True),
        ("http://payments.internal", "payments.internal:80", False),
        ("http://10.0.0.1:50051/", "10.0.0.1:50051", False),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", True),
        ("http://[::1]", "[::1]:80", False),
        ("HTTPS://Payments.Internal", "payments.internal:443", True),
        ("grpc://payments.internal:50051", "payments.internal:50051", False),
        ("grpc://payments.internal", "payments.internal:80", False),
        ("grpcs://payments.internal", "payments.internal:443", True),
        ("https://straße.example", "xn--strae-oqa.example:443", True),
    ],
)
def test_what_is_carried(url: str, target: str, secure: bool) -> None:
    assert address_of(url, plaintext=True) == Address(f"dns:///{target}", secure)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://payments.internal/secret", "besides host and port"),
        ("https://payments.internal/?secret", "besides host and port"),
        ("https://payments.internal#secret", "besides host and port"),
        ("https://me:secret@payments.internal", "besides host and port"),
        ("ftp://secret.internal", "scheme is ftp"),
        ("secret", "scheme is empty"),
        ("https:///secret", "it has no host"),
        ("https://secret.internal:0", "its port is 0"),
    ],
)
def test_what_is_not(url: str, problem: str) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as refused:
        address_of(url, plaintext=True)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_plaintext_may_be_refused(scheme: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"it is {scheme}, and this channel does not use plaintext"):
        address_of(f"{scheme}://payments.internal", plaintext=False)
    assert address_of(f"{scheme}s://payments.internal", plaintext=False).secure
