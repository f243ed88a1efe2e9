"""Endpoints: Consul's catalog and health as the addresses a cluster is sent, on a path of their own."""
