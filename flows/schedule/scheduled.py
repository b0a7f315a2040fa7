"""A scheduled run in its own process: `python -m flows.schedule.scheduled FLOW FLOW_RUN_ID`."""

from __future__ import annotations

import signal
import sys
from typing import Any
from uuid import UUID

from flows.notices import notice
from flows.stopping import interrupt, scheduled
from pipeline.errors import exit_status


def main(arguments: list[str]) -> int:
    """Run the flow run, and end with the status that its command would have had."""
    from flows.server.home import quiet_prefect, spare_loopback
    from flows.server.lifetime import cancelled_raised, drained

    name, flow_run_id = arguments[0], UUID(arguments[1])
    scheduled.set()
    spare_loopback()
    quiet_prefect()
    from prefect.flow_engine import run_flow

    from flows.schedule.deployments import flow_named
    from flows.server.processes import identity
    from flows.server.run_client import patient_client

    try:
        with cancelled_raised(), patient_client() as client, drained():
            client.begun.append(str(flow_run_id))
            flow_run = client.read_flow_run(flow_run_id)
            client.update_flow_run_labels(flow_run_id, dict(identity()))
            result: Any = run_flow(flow_named(name), flow_run=flow_run)
            print(f"{flow_run.name}: {result.headline()}", flush=True)
    except Exception as error:  # one without a status is a bug: its traceback is shown
        status = exit_status(error)
        if status is None:
            raise
        notice(f"{name}: {error}")
        return status
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(143)
