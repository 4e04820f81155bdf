"""The way in: importing this loads strawberry and builds the schema."""

from __future__ import annotations

from functools import partial

from .endpoint import respond
from .operations import Operations
from .socket import GraphQLSocket


class Door:
    """What answers over HTTP, and what serves a socket.

    Attributes:
        respond: Answers a request.
        socket: Makes the socket of a connection.
    """

    def __init__(self) -> None:
        """Share what was read between both."""
        operations = Operations()
        self.respond = partial(respond, operations)
        self.socket = partial(GraphQLSocket, operations)
