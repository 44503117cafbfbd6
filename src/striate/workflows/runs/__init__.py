"""`striate runs`: list the runs of a folder, and give them tags."""
