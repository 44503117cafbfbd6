"""Data sources: folders, CSV tables, IDX files, named data sets and remote storage."""
