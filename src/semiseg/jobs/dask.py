"""Jobs on dask: a scheduler that is there already, or one in this process.

What is sent is a command line and its exit status, but dask packs both with cloudpickle and, on a tcp:// address, asks
nobody who they are: whoever controls the scheduler, or can reach it, can run code on the workers and here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from semiseg.errors import MissingExtra, UserError
from semiseg.jobs.job import Ended, Job, run_job
from semiseg.processes import default_workers

WAIT_S = 20
"""For a scheduler to answer."""


class Dask:
    """scheduler: the address of one whose workers see the same folders and have semiseg; each of their threads runs one
    job at a time, and a job whose worker dies goes to another. Without it, `jobs` workers are started here."""

    def __init__(self, scheduler: str | None = None, jobs: int | None = None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise MissingExtra(
                "--launcher dask: got no distributed, expected it installed; run: pip install 'semiseg[dask]'"
            ) from None
        if scheduler and jobs:
            raise UserError(
                f"--jobs: got {jobs} with --scheduler, whose workers decide how many run at once; leave one out"
            )
        self._scheduler = scheduler
        self.at_once: int | None = None if scheduler else jobs or default_workers()

    def run(self, jobs: Sequence[Job]) -> Ended:
        from distributed import Client, LocalCluster, as_completed

        class Closed(Client):  # type: ignore[misc]  # without types
            """One that fails to connect is closed at once: the garbage collector, which may do so while the next one
            starts, would wait for a lock that this thread holds."""

            def __init__(self, address: object) -> None:
                try:
                    super().__init__(address, timeout=WAIT_S)
                except Exception:
                    self.close()
                    raise

        with ExitStack() as stack:
            where = self._scheduler or stack.enter_context(
                LocalCluster(n_workers=self.at_once, threads_per_worker=1, processes=False, dashboard_address=None)
            )
            try:
                client = stack.enter_context(Closed(where))
            except Exception as error:  # a transport of its own for every kind of address, with errors of its own
                raise UserError(
                    f"--scheduler: got {where} ({error!s:.200}), expected a running dask scheduler, such as "
                    "tcp://HOST:8786; check the address"
                ) from None
            futures = client.map(run_job, jobs, pure=False)
            jobs_by_key = {future.key: job for future, job in zip(futures, jobs, strict=True)}
            for future in as_completed(futures):
                yield jobs_by_key[future.key], future.result()
