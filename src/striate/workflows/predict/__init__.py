"""`striate predict`: classify new images with a trained run."""
