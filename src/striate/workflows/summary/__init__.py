"""`striate summary`: layers, parameters, MACs, memory and receptive fields."""
