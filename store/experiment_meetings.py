"""Which experiments a learner has met, as the recommender remembers it. Knows no statistics.

Kept in the store that may be lost: what is forgotten is reported again, and the service counts the first report.
"""

from typing import NamedTuple

from store.api import Bulk, Partition, Store, Table
from store.erasures import erasures_of


class Meeting(NamedTuple):
    """How a learner first met an experiment."""

    phase: int
    exposed: bool
    """False when the learner was assigned only."""


def find_meeting(store: Store, partition: Partition, experiment_id: str) -> Meeting | None:
    """The learner's meeting with an experiment, if there was one."""
    with store.read(partition) as reader:
        value = reader.get(Table.MET_EXPERIMENT, experiment_id.encode())
    return None if value is None else Meeting(int.from_bytes(value[:2], "big"), bool(value[2]))


def keep_meeting(
    store: Store, partition: Partition, experiment_id: str, meeting: Meeting, *, at: float
) -> None:
    """Remember it, unless the learner was erased since `at`."""
    value = meeting.phase.to_bytes(2, "big") + bytes((meeting.exposed,))

    def keep(bulk: Bulk) -> None:
        (erased,) = erasures_of(bulk, [partition.learner_id])
        if at > erased:
            bulk.put_many(Table.MET_EXPERIMENT, [(1, experiment_id.encode(), value)])

    store.submit_bulk([Partition(partition.tenant), partition], keep).result()
