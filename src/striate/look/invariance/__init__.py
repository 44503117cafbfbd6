"""What does it forgive? Answers and features while pictures move."""
