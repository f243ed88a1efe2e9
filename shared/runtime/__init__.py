"""Running a service: its process, its tasks, its settings, and when to wait."""
