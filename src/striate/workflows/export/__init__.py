"""`striate export`: write a run for other programs, checked against the run."""
