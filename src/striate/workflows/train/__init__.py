"""`striate train`: train a network on images, and write a run folder."""
