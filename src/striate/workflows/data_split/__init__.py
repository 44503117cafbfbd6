"""`striate data split`: divide images into train, validation and test."""
