"""Unit arithmetic: the terms whose sum is one value in a network."""
