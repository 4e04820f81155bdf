"""Limit algorithms without I/O, the shell that waits for them, and where their state is kept."""
