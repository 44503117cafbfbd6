"""`striate compare`: test which of several runs is better on the same images."""
