"""MLflow: a store of files inside the run folder, or the server that the run names."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from tunesmith.train.sinks.base import Sink, Writer


class MlflowWriter(Writer):
    """Metrics through a client of its own: no setting of the process is read or changed."""

    def __init__(self, client: Any, experiment: str, name: str) -> None:
        found = client.get_experiment_by_name(experiment)
        home = found.experiment_id if found else client.create_experiment(experiment)
        self.client, self.run = client, client.create_run(home, run_name=name).info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def close(self) -> None:
        self.client.set_terminated(self.run)


class Mlflow(Sink):
    """Writes `train/sinks/mlflow/`; look at it with `mlflow ui --backend-store-uri` and that path.

    With `uri`, the numbers go to that server instead.
    """

    kind: Literal["mlflow"] = "mlflow"
    library: ClassVar[str] = "mlflow"
    uri: str | None = None
    """A tracking server (`https://...`); by default files in the run folder."""
    experiment: str = "tunesmith"
    """The experiment that the record joins."""

    def open(self, folder: Path, name: str) -> Writer:
        from mlflow import MlflowClient

        uri = self.uri or (folder / "mlflow").resolve().as_uri()
        return MlflowWriter(MlflowClient(tracking_uri=uri), self.experiment, name)
