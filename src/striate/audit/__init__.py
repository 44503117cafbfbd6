"""Static analysis of a network: shapes, MACs, memory, receptive fields."""
