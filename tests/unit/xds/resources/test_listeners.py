"""Listeners of gRPC clients and of Envoy."""

import pytest

from pointsman_server.xds.resources.listeners import listener
from pointsman_server.xds.targets import UNKNOWN
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain

FILTERS = [
    {"name": "fault", "typed_config": {"@type": "HTTPFault"}},
    {"name": "router", "typed_config": {"@type": "Router"}},
]
ADS = {"ads": {}, "resource_api_version": "V3"}


@pytest.mark.parametrize("name", ["a~b~c", "xdstp://pointsman/envoy.config.listener.v3.Listener/a~b~c"])
def test_a_grpc_client_is_given_the_name_that_it_asked_for(name: str) -> None:
    assert plain(listener(View(), name, UNKNOWN)) == {
        "name": name,
        "api_listener": {
            "api_listener": {
                "@type": "HttpConnectionManager",
                "rds": {"config_source": ADS, "route_config_name": "a~b~c"},
                "http_filters": FILTERS,
            }
        },
    }


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:10001", {"address": "127.0.0.1", "port_value": 10_001}),
        ("[::1]:10001", {"address": "::1", "port_value": 10_001}),
        ("", {"address": "127.0.0.1", "port_value": 10_000}),
    ],
)
def test_an_envoy_listens_where_it_says(listen: str, address: object) -> None:
    view = View(ClientKind.ENVOY, listen=listen)

    assert plain(listener(view, "pointsman", UNKNOWN)) == {
        "name": "pointsman",
        "address": {"socket_address": address},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": "HttpConnectionManager",
                            "stat_prefix": "pointsman",
                            "rds": {"config_source": ADS, "route_config_name": "pointsman"},
                            "http_filters": FILTERS,
                            "strip_any_host_port": True,
                            "stream_idle_timeout": "0s",
                        },
                    }
                ]
            }
        ],
    }
