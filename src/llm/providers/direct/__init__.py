"""Bytes over HTTP/1.1 with nothing in between: our own connections, and a parser in C."""
