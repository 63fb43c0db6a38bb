"""What a study has spent on training so far, on whichever machines."""

from search.study import PURPOSES, Storage


def spent_seconds(storage: Storage) -> float:
    """Seconds that all runs of a study took together: of its trials, confirmation jobs and probes that have ended.

    The time of replicas that trained in one pass counts once, since each has its share of it. What was killed or lost
    with its machine left no record and does not count, so a study can have used somewhat more.
    """
    return sum(
        float(run["wall_seconds"])
        for purpose in PURPOSES
        for job in storage.trials(purpose)
        if job.state.is_finished()
        for run in job.user_attrs.get("runs", ())
    )
