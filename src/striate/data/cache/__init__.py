"""Decoded images and features kept on disk or in memory."""
