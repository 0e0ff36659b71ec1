"""What is trained: data, models, distillation losses, and the two roles. Only `ray_trial` needs Ray."""

from trainables.learner import Learner, Teacher
from trainables.recipe import Recipe
from trainables.student import Distill, Student
from trainables.task import Task, TrainedTeacher
from trainables.teacher import FrozenTeacher

__all__ = ["Distill", "FrozenTeacher", "Learner", "Recipe", "Student", "Task", "Teacher", "TrainedTeacher"]
