"""Limits: pure policies that take `now`, the accounts that hold them, and the queue of calls that wait for them."""
