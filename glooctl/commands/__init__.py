"""One verb a file; each has ``add_parser(commands)``."""
