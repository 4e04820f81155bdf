"""Doubles for tests of what uses this package: providers, a clock, an upstream server on a socket."""
