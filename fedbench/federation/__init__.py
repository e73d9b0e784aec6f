"""The engine: what clients, server and attacker exchange, and the round loop (``simulation.py``, the place to begin)."""
