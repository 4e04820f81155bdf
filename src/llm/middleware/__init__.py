"""The layers of the chain: each one class with one method, for unary calls and streams alike."""
