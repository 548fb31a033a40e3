"""uvicorn as the broker has it: the address, the server, and what makes up one connection."""
