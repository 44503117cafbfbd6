"""Torch data sets and data loaders: checks, reading, and lazily read images."""
