"""The command line. Reads and writes the objects in Consul KV as documents; imports no message class."""
