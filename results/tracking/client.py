"""How a job becomes calls to MLflow. Each may be made again, after its answer got lost: the store is then as after one.

That holds of a metric too: MLflow's databases, behind a server or not, keep a point with the same time once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from results.tracking.delivery import Job
from results.tracking.model_registry import register
from results.tracking.quiet import BRISK

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient


class TrackingClient:
    """Tells a store of one experiment's runs.

    Args:
        client: of the store.
        experiment_id: that new runs belong to.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        """Call nothing yet."""
        self._client, self._experiment_id = client, experiment_id

    def send(self, job: Job) -> None:
        """Do what `job` says, once; any error of MLflow or of the network comes out."""
        from mlflow.entities import Metric, Param, RunTag

        client, run_id, data = self._client, job.run._id, job.data
        with BRISK.calls():
            if job.op == "start":
                self._create(job)
            elif run_id is None:
                raise LookupError("MLflow has not created this run")
            elif job.op == "reopen":
                client.update_run(run_id, status="RUNNING")
            elif job.op == "params":
                client.log_batch(run_id, params=[Param(*item) for item in data["params"].items()])
            elif job.op == "log":
                tags = [RunTag(*item) for item in data["tags"].items()]
                client.log_batch(run_id, metrics=[Metric(*point) for point in data["metrics"]], tags=tags)
            elif job.op == "artifact":
                client.log_artifact(run_id, data["path"])
            elif job.op == "text":
                client.log_text(run_id, data["text"], data["name"])
            elif job.op == "model":
                register(client, self._experiment_id, run_id, data)
            else:
                client.set_terminated(run_id, data["status"], data["at"])

    def _create(self, job: Job) -> None:
        run, tags, parent = job.run, dict(job.data["tags"]), job.run._parent
        # The answer to the earlier attempt may have been lost after the run was made.
        made = self._find(run._ticket) if job.tries else None
        if made is None:
            above = parent and (parent._id or self._find(parent._ticket))
            tags |= {"mlflow.parentRunId": above} if above else {}
            made = self._client.create_run(self._experiment_id, job.data["at"], tags, run.name).info.run_id
        run._id = made
        run._settled.set()

    def _find(self, ticket: str) -> str | None:
        """The id of the run that has this ticket; None: there is none."""
        query = f"tags.`roletune.ticket` = '{ticket}'"
        found = list(self._client.search_runs([self._experiment_id], query, max_results=1))
        return str(found[0].info.run_id) if found else None
