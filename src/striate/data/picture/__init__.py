"""One picture: from a file's bytes to a network's input."""
