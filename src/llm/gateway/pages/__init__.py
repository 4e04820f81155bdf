"""The gateway's pages for people: what its routes are, as an OpenAPI document and drawn from it."""
