"""What does depth do to numbers? Sizes of activations and gradients, layer by layer."""
