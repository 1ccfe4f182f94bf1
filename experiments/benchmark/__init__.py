"""Speed of networks, loading and methods."""
