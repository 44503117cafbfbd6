"""What was added up to make this number? Step by step, down to the pixels."""
