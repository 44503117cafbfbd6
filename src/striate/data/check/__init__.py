"""Checks of a data set: duplicates, leaks, outliers, label errors."""
