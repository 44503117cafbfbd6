"""Invariance: how predictions and features change when an image is transformed."""
