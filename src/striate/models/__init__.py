"""Networks of the papers, by name, and their public weights."""
