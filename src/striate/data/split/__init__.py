"""Splits of a data set into train, validation and test."""
