"""Stage one as plain functions and small values: clips in, fixed-length feature sequences out."""
