"""Heads that label every step of a video: annotations, sequences of whole files, training, figures.

`videos.load_videos` makes of a store and its annotations what `pipeline.heads.training.train` takes.
"""
