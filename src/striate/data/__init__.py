"""Data sets of images: sources, decoding, splits, caching, augmentation, checks."""
