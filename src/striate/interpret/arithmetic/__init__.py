"""Unit arithmetic: the terms that add up to one number of a network."""
