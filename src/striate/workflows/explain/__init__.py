"""`striate explain`: heatmaps, filters, feature maps, and how a score is computed."""
