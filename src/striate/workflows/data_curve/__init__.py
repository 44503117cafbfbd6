"""`striate data curve`: accuracy by number of training images."""
