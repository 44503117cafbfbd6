"""`striate transfer`: reuse a trained network as a frozen backbone with a new head."""
