"""Real servers for tests: started on ports of their own, always stopped."""
