"""Stage two: heads trained from sequences; never opens a video.

Import what you need from the modules: `pipeline.heads.training.train`,
`pipeline.heads.saved.load_run`, `pipeline.heads.splits.make_split`, `pipeline.heads.zoo.HEADS`.
"""
