"""What the tests run in processes of its own: a broker that notes each request, and Prefect's real clients."""
