"""The composition: Prefect flows, the Dask cluster, settings and the command line."""

import os

from pipeline.homes import give_home

# Before any module of ours imports Prefect, in every process: it would report its use to its maker.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
give_home()
