"""What Prefect's own clients and workers need of a server: their routes and their sockets."""
