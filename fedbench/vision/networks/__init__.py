"""The networks behind the extractors, apart from their cards: torch is needed to define one, and not to read a card."""
