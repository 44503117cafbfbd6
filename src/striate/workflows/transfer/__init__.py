"""`striate transfer`: train a new head on the frozen backbone of a trained network."""
