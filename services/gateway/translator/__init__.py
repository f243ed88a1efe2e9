"""Gateways, virtual services and route tables to Proxies: pure functions from objects to JSON and reports."""
