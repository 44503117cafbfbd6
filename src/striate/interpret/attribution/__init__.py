"""Attribution maps: which pixels of an image support the score of a class."""
