"""`striate data check`: damaged files, duplicates, leaks, outliers and label errors."""
