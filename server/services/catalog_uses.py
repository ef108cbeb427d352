"""Who names a concept: questions that exercise it, concepts that need it. Changes nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from engine.catalog import Catalog
from store.api import Reader
from store.catalogs import get_concept, list_concepts, list_questions

_PAGE = 1_000


def uses_in_snapshot(catalog: Catalog, concept_ids: Sequence[str]) -> Counter[str]:
    """How many questions, and concepts outside `concept_ids`, name each of `concept_ids`."""
    rows = {concept_id: catalog.concept_row.get(concept_id) for concept_id in concept_ids}
    leaving = np.array([row for row in rows.values() if row is not None], np.uint32)
    uses: Counter[str] = Counter()
    for concept_id, row in rows.items():
        if row is not None:
            start, end = catalog.dependents.offsets[row], catalog.dependents.offsets[row + 1]
            staying = ~np.isin(catalog.dependents.rows[start:end], leaving)
            uses[concept_id] = len(catalog.concept_questions.of(row)) + int(staying.sum())
    return uses


def uses_by_scan(reader: Reader, concept_ids: Sequence[str]) -> Counter[str]:
    """The same from the stored catalogue itself, every entry of which it reads."""
    leaving = set(concept_ids)
    concepts = (get_concept(reader, concept_id) for concept_id in concept_ids)
    name_of = {concept.row: concept.concept_id for concept in concepts if concept is not None}
    uses: Counter[str] = Counter()
    for needing, needed in _needs(reader):
        if needed in leaving and needing not in leaving:
            uses[needed] += 1
    after = ""
    while questions := list_questions(reader, after=after, limit=_PAGE):
        uses.update(name_of[row] for question in questions for row in question.concept_rows if row in name_of)
        after = questions[-1].question_id
    return uses


def _needs(reader: Reader) -> Iterator[tuple[str, str]]:
    after = ""
    while concepts := list_concepts(reader, after=after, limit=_PAGE):
        for concept in concepts:
            for needed in concept.prerequisites:
                yield concept.concept_id, needed.concept_id
        after = concepts[-1].concept_id
