"""gloo: Proxy, Upstreams, endpoints and secrets to Envoy configuration, served over xDS."""
