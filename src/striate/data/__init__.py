"""What are the pictures? From files on disk to batches of tensors."""
