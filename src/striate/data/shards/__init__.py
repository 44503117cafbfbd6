"""Sets in tar shards: walked through, indexed, held where they fit, else streamed."""
