"""`striate bundle`: show, verify, extract and sign bundles."""
