"""`striate explain`: heatmaps, filters, feature maps, channels, unit arithmetic."""
