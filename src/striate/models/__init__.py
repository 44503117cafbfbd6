"""Which paper? One network family a file; `catalogue` builds them by name."""
