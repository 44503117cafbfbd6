"""What `data check` found: a page, pictures, a record."""
