"""The student: the parts of its loss, what each role sees, and a teacher that is never touched."""

import copy

import pytest
import torch
from torch import nn

from spaces import Entry, Genome, ImageSpec, Phase, Schedule
from trainables import Distill, FrozenTeacher, Recipe, Student, TrainedTeacher
from trainables.losses import kd_loss
from trainables.models import build_model
from trainables.student import start_from

SHAPE = {"classes": 3, "channels": 1, "size": 8}
INVERT = Genome((Entry("Invert", 10, 0),))


@pytest.fixture
def make_student(make_task):
    """A student and the task it is of."""

    def make(
        mover=None, seed=0, data=None, schedule=None, model="cnn", teacher="resnet8", recipe=None, epochs=4, **how
    ):
        recipe = recipe or Recipe(lr=0.05, batch_size=16)
        task = make_task("student", data=data, distill=Distill(**how), model=model, recipe=recipe, epochs=epochs)
        weights = build_model(teacher, seed=77, **SHAPE).state_dict()
        task = (
            copy.replace(task, teacher=TrainedTeacher(teacher, weights, schedule)) if hasattr(copy, "replace") else task
        )
        return task.learner(mover or Genome(), seed=seed)

    return make
