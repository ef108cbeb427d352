"""The smallest catalogue that there can be, for tests that only count."""

from engine.types import Concept, Question
from store import catalogs
from store.api import Partition, Store


def fill(store: Store, *question_ids: str, tenant: str = "default") -> None:
    """Put in questions, and the one concept that they are of."""

    def change(tx: object) -> None:
        concepts = catalogs.upsert_concepts(tx, [Concept("count", 0)], now=1.0)  # type: ignore[arg-type]
        row = concepts.entries[0].row
        questions = [Question(question_id, 0, (row,)) for question_id in question_ids]
        catalogs.upsert_questions(tx, questions, now=1.0)  # type: ignore[arg-type]

    store.update(Partition(tenant), change)
