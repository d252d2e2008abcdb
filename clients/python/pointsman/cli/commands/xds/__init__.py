"""``pointsman xds``: gRPC clients and Envoys that follow the routes by xDS."""
