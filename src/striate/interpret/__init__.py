"""Look inside any network: activations, attribution, arithmetic, invariance, depth."""
