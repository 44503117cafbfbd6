"""Changes to training pictures that keep their label."""
