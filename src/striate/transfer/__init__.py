"""What can be reused? Freezing, the cut, cached features, heads."""
