"""C99 source of a network: one file and its header, without any library."""
