"""What does a trained network already know? The job of `striate transfer`."""
