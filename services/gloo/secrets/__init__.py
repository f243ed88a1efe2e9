"""Secrets: read from Vault or from files, only those that something refers to."""
