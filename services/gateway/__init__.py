"""gateway: Gateways, VirtualServices and RouteTables to Proxies, and their statuses back."""
