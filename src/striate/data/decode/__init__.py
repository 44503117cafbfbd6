"""From the bytes of an image file to the input tensor of a network."""
