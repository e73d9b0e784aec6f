"""What is measured of a federation: the metrics, and the ranking of all items for all users that they are made from."""
