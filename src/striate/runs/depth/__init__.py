"""What does depth do while a network learns? Norms by layer, and chains to compare."""
