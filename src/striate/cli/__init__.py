"""Command line: one module per command; it parses flags and prints the result."""
