"""Caches of decoded images and of features, on disk or in memory."""
