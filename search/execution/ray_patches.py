"""Patches of Ray Tune 2.60 while trials run, to be checked when Ray's version changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from spaces import RoletuneError


@contextmanager
def idle_failures_ignored() -> Iterator[None]:
    """Keep the retries of a trial whose worker died while it was idle.

    Ray notices such a death when it assigns the worker a trial, and handles it twice: as the actor's failure, which
    puts the trial back to be started again, and then as the failure of the assignment, which ends the pending trial for
    good, however many retries it has. This patch ignores the second one.
    """
    handle = TuneController._trial_task_failure

    def once(controller: Any, trial: Trial, exception: Exception) -> None:
        again = trial in controller._resetting_trials and trial.status == Trial.PENDING
        if again and isinstance(exception, RayActorError):
            controller._resetting_trials.discard(trial)
        else:
            handle(controller, trial, exception)

    with patch.object(TuneController, "_trial_task_failure", once):
        yield


@contextmanager
def own_errors_unwrapped() -> Iterator[None]:
    """Raise a `RoletuneError` of a callback as itself.

    Ray wraps it in an error of its own, whose text is the whole traceback.

    Raises:
        RoletuneError: Error that a callback raised.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, RoletuneError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from cause.__cause__
