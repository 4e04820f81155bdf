"""The clients that are compared over sockets, each a program of its own: work on stdin, a result on stdout, in JSON.

They share nothing with the server, and those that are not ours nothing with this package.
"""
