"""What a process says about itself: logs, metrics and the admin endpoints."""
