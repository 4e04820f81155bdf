"""GraphQL at `/graphql`: queries and mutations over HTTP, and subscriptions too over a WebSocket.

`endpoint` is the way in; importing it loads strawberry, so that is done where it is first needed.
"""

from __future__ import annotations
