"""Interpretation of networks: activations, attribution, invariance and depth."""
