"""`striate evaluate`: accuracy of a run, and a decision threshold for one class."""
