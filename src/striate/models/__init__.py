"""Network architectures, one family per file; `catalogue` builds them by name."""
