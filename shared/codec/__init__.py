"""Messages to bytes and back, messages to documents (YAML and JSON) and back; strict, with paths."""
