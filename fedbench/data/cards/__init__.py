"""The cards of the catalogue, one file for each origin of data."""
