"""What a request through the gateway costs, beside one through a bare handler that makes the same upstream call."""
