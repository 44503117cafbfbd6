"""`striate data curve`: accuracy against the number of training images."""
