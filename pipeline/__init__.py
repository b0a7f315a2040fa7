"""Two stages of video classification: pixels to features, features to heads."""
