"""The three services; they know nothing of each other but the objects in Consul."""
