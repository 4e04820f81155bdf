"""Public benchmarks: `make bench-limits` and `make bench-overhead`."""
