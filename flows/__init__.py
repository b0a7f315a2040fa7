"""The composition: Prefect flows, the Dask cluster, settings and the command line."""
