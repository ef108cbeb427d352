"""What becomes of a request for slates: new ones, side by side, or one that was kept before. Makes and encodes none."""

from typing import NamedTuple, TypeAlias

from engine.slate import Slate
from engine.slates import Slates
from server import errors
from server.tenants import Bundle
from store.records import SlateRecord
from store.slate_values import NewSlates


class Kept(NamedTuple):
    """A slate with its record, which says what kept it from being all it could be."""

    record: SlateRecord
    slate: Slate

    @property
    def degraded(self) -> int:
        """What kept the slate from being all it could be, a DegradedReason."""
        return self.record.degraded


class Fresh(NamedTuple):
    """Slates that were just drawn for learners under one policy. Few of them need ever be objects."""

    new: NewSlates
    slates: Slates

    def kept(self, place: int, bundle: Bundle) -> Kept:
        """One of them as an object."""
        new, slate, ids = self.new, self.slates[place], bundle.catalog.question_ids
        record = SlateRecord(
            recommendation_id=new.recommendation_ids[place],
            learner_id=new.learner_ids[place],
            created_at=new.created_at,
            expires_at=new.expires_at,
            request_digest=new.request_digest,
            payload=self.slates.stored(place),
            question_ids=tuple([ids[row] for row in slate.column("question")]),
            correlation_id=new.correlation_ids[place],
            degraded=new.degraded,
        )
        return Kept(record, slate)


class Placed(NamedTuple):
    """One of the slates that were just drawn, and is kept."""

    group: Fresh
    place: int

    @property
    def degraded(self) -> int:
        """What kept the slate from being all it could be, a DegradedReason."""
        return self.group.new.degraded


Outcome: TypeAlias = Placed | Kept | errors.GenieError
"""What becomes of a learner's request: a new slate, one that was kept before or could not be kept now, an error."""
