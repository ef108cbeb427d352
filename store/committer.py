"""One thread that turns operations arriving together into one commit. Knows neither keys nor back end."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from store.api import Partition, StoreUnavailable


@dataclass(slots=True)
class Job:
    """An operation that waits for its commit, and how it ended in the current attempt."""

    partition: Partition | None
    """None for the store's own entries."""
    operation: Callable[[Any], Any]
    """Takes a `Transaction`, or a `Bulk` where `bulk` says of which partitions."""
    bulk: Sequence[Partition] | None = None
    future: "Future[Any]" = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None

    @property
    def size(self) -> int:
        """Partitions that it is about: what waits behind a commit waits for all of them."""
        return 1 if self.bulk is None else len(self.bulk)

    def resolve(self) -> None:
        """Tell the submitter."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupCommitter:
    """Runs `commit(jobs)` on its own thread; while one commit waits for the disk, the next group gathers."""

    def __init__(self, commit: Callable[[list[Job]], None], max_group: int) -> None:
        """Start the thread. `commit` sets every job's result or error and returns once that is durable.

        No job joins a group that is about `max_group` partitions already.
        """
        self._commit = commit
        self._max_group = max_group
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="store-commit", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises StoreUnavailable after `close`."""
        with self._gate:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._queue.put(job)

    def is_current_thread(self) -> bool:
        """Whether the caller runs on the committing thread, where waiting for a commit would never end."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Commit what was submitted, then end the thread."""
        with self._gate:
            if not self._closing:
                self._closing = True
                self._queue.put(None)
        if not self.is_current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group = [first]
            size = first.size
            last = False
            while size < self._max_group and not last:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                else:
                    group.append(job)
                    size += job.size
            self._finish([job for job in group if job.future.set_running_or_notify_cancel()])
            if last:
                return

    def _finish(self, group: list[Job]) -> None:
        if not group:
            return
        try:
            self._commit(group)
        except BaseException as error:
            for job in group:
                job.error = error
        for job in group:
            job.resolve()
