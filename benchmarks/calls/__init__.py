"""What calls cost in CPU time and memory, in multiples of bare ones, beside the vendors' clients and litellm."""
