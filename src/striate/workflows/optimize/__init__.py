"""`striate optimize`: find the fastest way to run a network on this machine."""
