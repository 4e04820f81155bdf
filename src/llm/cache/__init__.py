"""Cache keys, and a backend each for memory, disk and Redis."""
