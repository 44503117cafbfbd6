"""Image data sets: sources, decoding, splits, caching, augmentation and checks."""
