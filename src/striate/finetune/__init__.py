"""Fine-tuning of any network: freezing, cut points, linear heads, unfreezing."""
