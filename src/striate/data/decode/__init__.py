"""Decoding and preprocessing of image files into network input."""
