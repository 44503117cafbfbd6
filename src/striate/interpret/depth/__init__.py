"""Norms of activations and gradients of each layer, from the first to the last."""
