"""Training in several processes (torchrun)."""
