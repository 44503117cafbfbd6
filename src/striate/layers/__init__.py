"""Layers and blocks that torch does not provide, one idea of a paper per file."""
