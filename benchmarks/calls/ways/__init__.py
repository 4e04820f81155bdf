"""The ways to make a call that are compared, a module for each process."""
