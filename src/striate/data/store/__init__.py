"""What was decoded before: the cache folder, its packs and its book of facts."""
