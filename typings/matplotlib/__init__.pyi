"""What `benchmarks` relies on of matplotlib 3.11."""

rcParams: dict[str, object]
