"""Computed values that follow their inputs, at the cost of what changed."""
