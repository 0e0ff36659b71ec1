"""Calls to MLflow, each of which may be made again after its answer got lost: the store is then as after one.

That holds for metrics too: MLflow's databases, behind a server or not, keep a point with the same time once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from results.tracking.model_registry import register
from results.tracking.projection import Call, Op, RunKey
from results.tracking.quiet import BRISK

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient


class TrackingClient:
    """Makes the calls of a projection in one experiment of a store.

    Args:
        client: Client of the store.
        experiment_id: Experiment of the runs.
        resumed: True if an earlier process may have created some of the runs.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, *, resumed: bool = False) -> None:
        self._client, self._experiment_id, self._resumed = client, experiment_id, resumed
        self._ids: dict[str, str | None] = {}

    def send(self, call: Call) -> None:
        """Make one call; any error of MLflow or of the network comes out.

        Raises:
            LookupError: If the run was never created, because MLflow refused it.
        """
        from mlflow.entities import Metric, Param, RunTag

        client, data = self._client, call.data
        with BRISK.calls():
            if call.op is Op.START:
                self._create(call)
                return
            if (run_id := self._id(call.run.uuid)) is None:
                raise LookupError("MLflow has not created this run")
            match call.op:
                case Op.REOPEN:
                    client.update_run(run_id, status="RUNNING")
                case Op.PARAMS:
                    client.log_batch(run_id, params=[Param(*item) for item in data["params"].items()])
                case Op.LOG:
                    tags = [RunTag(*item) for item in data["tags"].items()]
                    client.log_batch(run_id, metrics=[Metric(*point) for point in data["metrics"]], tags=tags)
                case Op.ARTIFACT:
                    client.log_artifact(run_id, data["path"])
                case Op.TEXT:
                    client.log_text(run_id, data["text"], data["name"])
                case Op.MODEL:
                    register(client, self._experiment_id, run_id, data)
                case Op.FINISH:
                    client.set_terminated(run_id, data["status"], data["at"])

    def _create(self, call: Call) -> None:
        key: RunKey = call.run
        # An earlier process, or an attempt whose answer got lost, may have created the run.
        made = self._find(key.uuid) if call.tries or self._resumed else None
        if made is None:
            tags = dict(call.data["tags"])
            if key.parent is not None and (above := self._id(key.parent)) is not None:
                tags["mlflow.parentRunId"] = above
            made = str(self._client.create_run(self._experiment_id, call.data["at"], tags, key.name).info.run_id)
        self._ids[key.uuid] = made

    def _id(self, uuid: str) -> str | None:
        """MLflow's id of a run; None if there is no such run."""
        if uuid not in self._ids:
            self._ids[uuid] = self._find(uuid)
        return self._ids[uuid]

    def _find(self, uuid: str) -> str | None:
        query = f"tags.`roletune.uuid` = '{uuid}'"
        found = list(self._client.search_runs([self._experiment_id], query, max_results=1))
        return str(found[0].info.run_id) if found else None
