"""A dialect per vendor, the transports that carry it, and the one table of errors."""
