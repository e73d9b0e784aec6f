"""What a method says of itself (cards), and where it is found by name (the registry)."""
