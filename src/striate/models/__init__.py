"""Networks, one family per file; `catalogue` builds them by name."""
