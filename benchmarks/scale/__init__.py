"""The real scheduler with up to thousands of accounts and workers, on a virtual clock."""
