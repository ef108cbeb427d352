"""Concepts and questions from rows into a store, the graph kept free of cycles. Reads no files."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from engine.graph import Edge, break_cycles, find_cycle
from engine.types import Concept, Question
from server.errors import EmbeddingSizeMismatch, printable
from server.services.catalog_entries import EmbeddingSizes
from store.api import Partition, Store, Transaction
from store.catalogs import list_concepts, upsert_concepts, upsert_questions

QUESTIONS_A_COMMIT = 2_048
"""Other writers wait for as long as so many take."""
_ALL = 1 << 40


class CatalogRefused(Exception):
    """Entries that would make no sound catalogue; nothing of their commit was stored."""


@dataclass(slots=True)
class Changes:
    """How many entries a file brought about."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def add(self, more: "Changes") -> None:
        """Count more."""
        self.created += more.created
        self.updated += more.updated
        self.unchanged += more.unchanged


def store_concepts(
    store: Store, tenant: str, concepts: Sequence[Concept], *, now: float, cut_cycles: bool
) -> tuple[Changes, list[Edge]]:
    """Upsert all of them, or nothing; (what changed, edges that were dropped to break cycles).

    Raises:
        CatalogRefused: a prerequisite nobody lists, or a cycle and `cut_cycles` is off; the message names it.
    """

    def operation(tx: Transaction) -> tuple[Changes, list[Edge]]:
        held = {concept.concept_id: concept for concept in list_concepts(tx, limit=_ALL)}
        together = {**held, **{concept.concept_id: concept for concept in concepts}}
        _check_known(concepts, together)
        changed, dropped = list(concepts), list[Edge]()
        # Sorted, so that a repeat finds the same cycle and drops the same edges.
        needs = {name: together[name].prerequisites for name in sorted(together)}
        cycle = find_cycle({name: [need.concept_id for need in found] for name, found in needs.items()})
        if cycle is not None:
            if not cut_cycles:
                path = " -> ".join(map(printable, cycle))
                raise CatalogRefused(f"prerequisites form a cycle: {path} (--break-cycles drops such edges)")
            kept, dropped = break_cycles(needs)
            named = {edge.concept_id for edge in dropped} | {concept.concept_id for concept in concepts}
            changed = [
                dataclasses.replace(together[name], prerequisites=kept[name]) for name in sorted(named)
            ]
        done = upsert_concepts(tx, changed, now=now)
        return Changes(done.created, done.updated, done.unchanged), dropped

    return store.update(Partition(tenant), operation)


def _check_known(concepts: Sequence[Concept], together: dict[str, Concept]) -> None:
    for concept in concepts:
        for need in concept.prerequisites:
            if need.concept_id not in together:
                raise CatalogRefused(
                    f"concept {printable(concept.concept_id)} names the prerequisite "
                    f"{printable(need.concept_id)}, which neither the file nor the catalogue holds"
                )


def store_questions(
    store: Store, tenant: str, questions: Iterable[tuple[Question, list[str]]], *, now: float
) -> tuple[Changes, int]:
    """Upsert questions with the ids of their concepts; (what changed, concepts created because nobody listed them).

    Each commit takes up to `QUESTIONS_A_COMMIT`.

    Raises:
        CatalogRefused: embeddings of different lengths; earlier commits stay.
    """
    changes, new_concepts, sizes = Changes(), 0, EmbeddingSizes()
    entries = iter(questions)
    while chosen := list(islice(entries, QUESTIONS_A_COMMIT)):
        operation = partial(_put_questions, tenant=tenant, entries=chosen, sizes=sizes, now=now)
        done, created, version, size = store.update(Partition(tenant), operation)
        sizes.remember(tenant, version, size)
        changes.add(done)
        new_concepts += created
    return changes, new_concepts


def _put_questions(
    tx: Transaction, tenant: str, entries: list[tuple[Question, list[str]]], sizes: EmbeddingSizes, now: float
) -> tuple[Changes, int, int, int | None]:
    try:
        size = sizes.check(tx, tenant, [question for question, _ in entries])
    except EmbeddingSizeMismatch as error:
        raise CatalogRefused(error.message) from error
    row_of = {concept.concept_id: concept.row for concept in list_concepts(tx, limit=_ALL)}
    named = {name: None for _, concept_ids in entries for name in concept_ids if name not in row_of}
    made = upsert_concepts(tx, [Concept(name, 0) for name in named], now=now)
    row_of |= {concept.concept_id: concept.row for concept in made.entries}
    questions = [
        dataclasses.replace(question, concept_rows=tuple(row_of[name] for name in concept_ids))
        for question, concept_ids in entries
    ]
    done = upsert_questions(tx, questions, now=now)
    return Changes(done.created, done.updated, done.unchanged), made.created, done.version, size
