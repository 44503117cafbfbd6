"""How does it learn? The loop, its parts, and what it writes down."""
