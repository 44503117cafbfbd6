"""Data augmentation: random transforms of training images that keep their label."""
