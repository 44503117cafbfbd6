"""Unit arithmetic: the terms that add up to one value of a network."""
