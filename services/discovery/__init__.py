"""discovery: every Consul service as an Upstream."""
