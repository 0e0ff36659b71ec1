"""One trial's training: data, models, distillation losses, teacher and student. Only `ray_trainable` imports Ray."""

from trainables.distillation.objective import Distill
from trainables.distillation.student import Student
from trainables.quantization import Bits
from trainables.task import Task, TrainedTeacher
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.learner import Learner, Teacher
from trainables.training.recipe import Recipe

__all__ = [
    "Bits",
    "Distill",
    "FrozenTeacher",
    "Learner",
    "Recipe",
    "Student",
    "Task",
    "Teacher",
    "TrainedTeacher",
]
