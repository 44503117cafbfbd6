"""What does it see? Pictures of filters and feature maps of any network."""
