"""Who goes where? Parts, folds and fractions."""
