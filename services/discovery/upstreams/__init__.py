"""From Consul's catalog to the Upstreams that ought to be, and from those to writes; pure."""
