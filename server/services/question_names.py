"""Ids of questions and of their concepts, encoded once a catalogue, for whoever writes slates. Draws none."""

from engine.labels import Shelf, all_noted
from engine.slates import Slates
from engine.types import NO_ROW
from genie.v1 import recommendation_service_pb2 as pb
from server.tenants import Bundle


def names_of(slates: Slates, bundle: Bundle) -> Shelf:
    """A shelf with the questions of these slates: the id, and behind it the concepts as a field of a reply's item."""
    shelf = bundle.names.shelf
    if all_noted(shelf.starts, slates.rows):
        return shelf
    rows = set(slates.rows.ravel().tolist()) - {NO_ROW}
    return bundle.names.holding(rows, lambda row: _name(bundle, row))


def concept_ids(bundle: Bundle, row: int) -> list[str]:
    """The concepts of a question, as far as this catalogue has them."""
    own = bundle.question_concepts
    if row + 1 >= len(own.offsets):
        return []
    rows = own.concepts[own.offsets[row] : own.offsets[row + 1]].tolist()
    return [name for name in map(bundle.concept_id, rows) if name]


def _name(bundle: Bundle, row: int) -> tuple[bytes, bytes]:
    concepts = pb.RecommendedItem(concept_ids=concept_ids(bundle, row))
    return bundle.catalog.question_ids[row].encode(), concepts.SerializeToString()
