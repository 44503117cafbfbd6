"""`striate evaluate`: accuracy, and a decision threshold for one class."""
