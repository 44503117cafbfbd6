"""Which run is better? Runs on the same pictures, or settings over several seeds."""
