"""What in the picture speaks for the answer? Maps, and what they are worth."""
