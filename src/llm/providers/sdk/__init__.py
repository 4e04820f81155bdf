"""`transport: sdk`: the vendor's own client addresses and signs a request, and our connections carry it."""
