"""Activations and gradients by depth, in a run and in deep networks."""
