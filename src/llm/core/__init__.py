"""Types, the call record, the chain's seams, clients, pool and manager; imports no provider and no middleware."""
