"""Several processes that learn as one: who they are, what they tell each other."""
