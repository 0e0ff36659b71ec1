"""What is trained: data, models, distillation losses, and the two roles. Only `ray_trial` needs Ray."""

from trainables.distill import Distill
from trainables.learner import Learner, Teacher
from trainables.low_bit import Bits
from trainables.recipe import Recipe
from trainables.stacked import Stack, stackable
from trainables.student import Student
from trainables.task import Task, TrainedTeacher
from trainables.teacher import FrozenTeacher

__all__ = [
    "Bits",
    "Distill",
    "FrozenTeacher",
    "Learner",
    "Recipe",
    "Stack",
    "Student",
    "Task",
    "Teacher",
    "TrainedTeacher",
    "stackable",
]
