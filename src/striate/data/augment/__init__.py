"""Data augmentation: random changes of training images that keep their label."""
