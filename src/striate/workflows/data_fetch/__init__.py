"""`striate data fetch`: download a public data set, verified by SHA-256."""
