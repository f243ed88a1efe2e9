"""Everything that talks to Consul: client, long polls, KV, catalog, sessions, leadership, members."""
