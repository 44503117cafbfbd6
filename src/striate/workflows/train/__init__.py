"""`striate train`: images and a network in, a run folder out."""
