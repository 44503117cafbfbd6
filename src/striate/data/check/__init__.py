"""Is the set sound? Broken, doubled, leaked and odd pictures."""
