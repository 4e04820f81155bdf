"""The part of redis (5.2 and newer) that stores of several processes rely on; bytes in, bytes out."""

from . import asyncio as asyncio
from . import exceptions as exceptions
