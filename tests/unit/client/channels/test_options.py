"""The arguments of a channel."""

import math
from typing import Any

import grpc
import pytest

from pointsman.channels.options import BackendOptions, checked_drain, sticky_key_source


def test_the_sticky_key_is_fixed_or_found_in_the_metadata() -> None:
    assert sticky_key_source("user-1")(None) == "user-1"
    found = sticky_key_source(lambda metadata: str(dict(metadata).get("user", "")))
    assert (found(None), found((("user", "user-2"),))) == ("", "user-2")


@pytest.mark.parametrize("given", [None, 7, b"user-1"])
def test_a_sticky_key_is_text(given: Any) -> None:
    with pytest.raises(TypeError, match=f"sticky_key must be text, not {type(given).__name__}"):
        sticky_key_source(given)
    found = sticky_key_source(lambda _: given)
    with pytest.raises(TypeError, match=f"the function sticky_key must return text, not {type(given).__name__}"):
        found(None)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_the_drain_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="drain_seconds must be"):
        checked_drain(seconds)
    assert checked_drain(0) == 0


def test_the_credentials_given_win() -> None:
    given = grpc.ssl_channel_credentials()
    assert BackendOptions(given).tls() is given
    assert isinstance(BackendOptions().tls(), grpc.ChannelCredentials)
