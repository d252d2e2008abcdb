"""The messages of the xDS API, v3 (envoyproxy.io/docs/envoy/latest/api-v3/api)."""
