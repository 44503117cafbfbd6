"""Layers and blocks that torch does not have."""
