"""Pages and pictures: pure functions of frames and arrays."""
