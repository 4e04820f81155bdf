"""The vendors' addresses, answered by a manager: a body is read, asked, and what came is written in its dialect.

The gateway puts them on a socket, `in_process` under the vendors' own clients. `service` is what they work with,
`inquiry` what is known of one request, `answers` the two forms of an answer, `faults` how a failure is told, `table`
which address leads where.
"""
