"""Data and teacher lie once on a node, however many actors train on them; the driver keeps no report."""

import re
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

from results.runlog.members import METRIC
from search.execution.journal import Journal
from trainables import Recipe, Task, TrainedTeacher
from trainables.data import DataSet, TensorImages

BYTES = 40_000_000
ROLLUP = Path("/proc/self/smaps_rollup")


def images(count):
    return TensorImages(torch.ones(count, 1, 100, 100, dtype=torch.uint8), torch.arange(count) % 2)


def private():
    """Bytes that this process shares with no other."""
    found = re.search(r"^Private_Dirty:\s+(\d+) kB$", ROLLUP.read_text("utf-8"), re.M)
    return 1024 * int(found[1])


class Reader:
    """An actor that takes a task as a trial does."""

    def took(self, box):
        """What its memory grew by, and what it read."""
        import ray

        ray.get(box[1])  # whatever the first `get` of all takes
        before = private()
        self.task = ray.get(box[0]).to("cpu")
        read = int(self.task.data.train.images.sum(dtype=torch.int64))
        read += sum(int(value.sum()) for value in self.task.teacher.weights.values())
        return private() - before, read


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not ROLLUP.exists(), reason="reads Linux's account of a process")
def test_actors_share_images_and_teacher(marks):
    import ray

    few = images(10)
    data = DataSet("ones", 2, 1, 100, (0.5,), (0.5,), 0, False, images(BYTES // 10_000), few, few)
    weights = {"large": torch.ones(BYTES // 4)}
    task = Task("student", "mlp", data, Recipe(), 1, teacher=TrainedTeacher("mlp", weights))
    box = [ray.put(task), ray.put(TrainedTeacher("mlp", {"small": torch.ones(10)}))]
    actors = [ray.remote(num_cpus=1)(Reader).remote() for _ in range(2)]
    for grew, read in ray.get([actor.took.remote(box) for actor in actors]):
        assert read == BYTES + BYTES // 4
        assert grew < BYTES / 4, f"{grew / 1e6:.0f} MB of its own, of {2 * BYTES / 1e6:.0f} MB that it read"


def test_the_driver_keeps_a_member_s_scores_and_none_of_its_reports(tmp_path):
    """Of 40 numbers an epoch one is kept, with its epoch."""
    with Journal(tmp_path) as journal:

        def train(first, last):
            for epoch in range(first, last + 1):
                metrics = {f"policy/{number}": epoch / 7 for number in range(40)} | {METRIC: epoch / 7}
                journal.reported("student-pbt-00", epoch, metrics)
                journal.saved("student-pbt-00", epoch, journal.trials / "s" / f"checkpoint_{epoch:06d}")

        train(1, 5)
        tracemalloc.start()
        try:
            train(6, 500)
            taken = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
    # What is made here and in the sweep's own code: threads of other tests' Ray and MLflow may be at work meanwhile.
    ours = taken.filter_traces(
        [tracemalloc.Filter(True, file) for file in ("*/search/*.py", "*/results/*.py", __file__)]
    )
    grew = sum(each.size for each in ours.statistics("filename"))
    assert journal.progress("student-pbt-00").reports == [] and grew < 200 * 495 + 50_000
