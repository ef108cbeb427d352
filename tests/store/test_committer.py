"""Groups of a commit: bounded by the partitions that they are about, in the order of submission."""

import threading

from store.api import Partition, Transaction
from store.committer import GroupCommitter, Job


def test_a_large_job_closes_its_group() -> None:
    begun, go_on = threading.Event(), threading.Event()
    groups: list[list[Job]] = []

    def commit(jobs: list[Job]) -> None:
        groups.append(jobs)
        begun.set()
        assert go_on.wait(60.0)

    def nothing(tx: Transaction) -> None:
        return None

    committer = GroupCommitter(commit, max_group=4)
    first = Job(Partition("t", "a"), nothing)
    committer.submit(first)
    assert begun.wait(60.0)
    large = [Partition("t", str(number)) for number in range(5)]
    small = [Job(Partition("t", "b"), nothing) for _ in range(6)]
    bulk = Job(None, nothing, bulk=large)
    waiting = [small[0], bulk, *small[1:]]
    for job in waiting:
        committer.submit(job)
    go_on.set()
    committer.close()
    assert groups == [[first], [small[0], bulk], small[1:5], small[5:]]
    assert all(job.future.done() for job in waiting)
