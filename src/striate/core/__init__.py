"""Errors, findings, hooks, files and seeds that all packages share."""
