"""The objects in Consul KV: where they lie, how they are read, watched, written and reported on."""
