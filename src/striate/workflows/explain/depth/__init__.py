"""How activations and gradients change with depth, in real runs and in test chains."""
