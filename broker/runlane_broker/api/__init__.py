"""The HTTP edge: parse, one call, render. No business logic; one file a resource."""
