"""Layers and blocks that torch does not provide, one type of layer per file."""
