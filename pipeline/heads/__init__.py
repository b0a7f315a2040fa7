"""Stage two: heads trained from sequences; never opens a video."""
