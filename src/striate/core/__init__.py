"""Shared modules: errors, findings, hooks, atomic files, seeds, preprocessing."""
