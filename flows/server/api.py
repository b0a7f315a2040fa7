"""The program of a temporary Prefect server: `python -m flows.server.api HOST PORT`.

As `uvicorn --factory prefect.server.api.server:create_app`, but the garbage collector is paused while
the server is imported and built: a quarter of its start is otherwise spent on looking for garbage among
what stays.
"""

from __future__ import annotations

import sys

from flows.imports import collection_paused


def main(host: str, port: int) -> None:
    """Serve the API until SIGTERM."""
    with collection_paused():
        import uvicorn
        from prefect.server.api.server import create_app

        app = create_app()
    uvicorn.run(app, host=host, port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
