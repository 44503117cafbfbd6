"""What do we call things? Words that every room shares."""
