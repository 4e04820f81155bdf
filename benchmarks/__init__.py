"""Public benchmarks: `make bench`, `make bench-limits` and `make bench-waiters`."""
