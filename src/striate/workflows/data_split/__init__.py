"""`striate data split`: divide images into training, validation and test splits."""
