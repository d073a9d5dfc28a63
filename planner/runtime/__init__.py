"""Finding execution providers and running models on them, always in a process of their own: `Worker` in client.py."""
