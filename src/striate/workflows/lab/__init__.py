"""`striate lab`: claims about convolutional networks as experiments to run again."""
