"""Workflows: one folder for each command of the command line."""
