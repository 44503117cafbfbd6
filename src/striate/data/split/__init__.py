"""Division into train, validation and test."""
