"""The gateway's routes, a module for each dialect; a handler reads a body, asks, and writes what came."""
