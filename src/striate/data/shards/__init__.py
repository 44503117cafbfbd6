"""Tar shards in the WebDataset format."""
