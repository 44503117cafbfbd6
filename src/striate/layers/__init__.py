"""Which block? Layers that torch lacks, one paper's idea a file."""
