"""Proxy, Upstreams and groups to Envoy's resources and reports: pure functions, one unit of work each."""
