"""`striate explain`: heat maps, filters, feature maps and unit arithmetic."""
