"""`striate data augment`: preview augmentation, and test if labels stay correct."""
