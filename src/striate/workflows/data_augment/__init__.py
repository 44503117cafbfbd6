"""`striate data augment`: augmented images, and labels that they put at risk."""
