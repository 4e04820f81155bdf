"""The gateway: a manager's keys, limits and caches for programs that speak HTTP, WebSocket or GraphQL.

Needs the extra `gateway`; importing this door loads none of it.
"""

from __future__ import annotations
