"""`striate data preview`: images exactly as the network will see them."""
