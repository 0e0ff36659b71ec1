"""Policy files that a search starts from or compares."""

from __future__ import annotations

from spaces import Genome, RequestError, Schedule, Space


def load_genome(path: str, role: str, space: Space, setting: str, *, mean: bool = False) -> Genome:
    """Return one genome of a policy file.

    Args:
        path: Policy file.
        role: Role that the policy must be for.
        space: Space that its policy must be of.
        setting: Setting that names the file, for messages.
        mean: True for the time average of the schedule; False for its last genome.

    Raises:
        RequestError: There is no such file, or it is of another role, another kind, or other operations than those of
            the space.

    Example:
        >>> load_genome("policy.teacher.json", "teacher", Space(), "teacher.search.start")  # doctest: +SKIP
    """
    schedule = Schedule.load(path, custom=space.custom_names)
    if schedule.role != role:
        raise RequestError(f"{setting} must be a policy for the {role}", value=f"{path}: {schedule.role}")
    try:
        for phase in schedule.phases if mean else schedule.phases[-1:]:
            space.check(phase.genome)
    except RequestError as error:
        raise RequestError(f"{setting} ({path}): {error}") from error
    whole = schedule.mean() if mean and len(schedule.phases) > 1 else schedule
    return whole.phases[-1].genome
