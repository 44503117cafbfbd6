"""Errors, findings, hooks, atomic files, seeds and preprocessing, for all packages."""
