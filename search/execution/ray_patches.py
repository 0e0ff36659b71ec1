"""What is mended in Ray Tune 2.60 while trials run; look at it again when Ray's version moves."""

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
def idle_deaths_survived() -> Iterator[None]:
    """Within this block a worker that dies while it waits for its next trial costs no trial its retries.

    Ray hears of such a death when it hands the worker a trial, and then twice. First as the actor's, whereupon the
    trial is put back to be started again, as it should. Then as the handing over's, whereupon the trial, which waits by
    now, is ended as failed for good, however many retries it has. The second time is passed over here.
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
def own_errors_told() -> Iterator[None]:
    """What a callback raises of roletune's own comes out of this block as itself.

    Ray puts it into an error of its own, whose text is the whole traceback.

    Raises:
        RoletuneError: that a callback raised.
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
