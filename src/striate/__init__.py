"""striate: the workbench for convolutional networks."""
