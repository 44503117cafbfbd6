"""Data augmentation: random transforms of training images."""
