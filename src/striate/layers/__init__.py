"""Layers and blocks that torch lacks, one idea of a paper per file."""
