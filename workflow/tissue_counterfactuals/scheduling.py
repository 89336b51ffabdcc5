"""Snakemake looks for the next jobs when one has ended, and not all the time."""

import threading


def look_again_only_for_free_slots() -> None:
    """Keep Snakemake's process from using a core of its own while jobs wait for cores.

    Snakemake counts how many jobs it starts in a second, and so looks a second after each round of scheduling whether
    more may start. Each job that ends begins one more such chain of rounds (its pull request 3744), and a round looks
    at all files of all waiting jobs: in a run of 900 jobs that took 40 % of one of two cores, and takes 5 % without. A
    round is of use only if the last one started as many jobs as were allowed; otherwise jobs wait for cores or memory,
    which become free when a job ends, and Snakemake looks then anyway.

    Where another version of Snakemake has no such chain, nothing is changed.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    if not hasattr(JobScheduler, "_schedule_reevalutation"):
        return

    def look_again(self, delay: float) -> None:
        limit = self.job_rate_limiter
        if limit is not None and delay == limit.timespan and limit.get_free_jobs() > 0:
            return
        threading.Timer(delay, self._open_jobs.release).start()

    JobScheduler._schedule_reevalutation = look_again
