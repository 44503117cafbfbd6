"""Activation and gradient sizes by layer depth."""
