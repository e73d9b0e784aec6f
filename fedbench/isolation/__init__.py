"""Contributed attacks in processes of their own: confined, watched, and told only what their cards declare."""
