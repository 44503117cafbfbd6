"""`striate data preview`: images exactly as the network receives them."""
