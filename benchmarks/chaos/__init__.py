"""Thousands of calls through everything that can go wrong, and what is promised held against what happened."""
