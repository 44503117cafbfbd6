"""`striate weights convert`: write a weights file in another format."""
