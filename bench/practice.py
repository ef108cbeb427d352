"""What learners of a world answer next: questions of the stretch of the curriculum that they are at. Sends nothing."""

import uuid
from pathlib import Path
from typing import Self

import numpy as np

from bench import world
from engine.catalog import build_catalog
from engine.types import I8
from genie.v1 import practice_service_pb2 as pb
from store import catalogs
from store.api import Partition, Reader
from store.learners import read_state
from store.lmdb_store import LmdbStore
from store.stores import STATE

RIGHT = 0.8
"""Share of answers that are right."""


class Practice:
    """New answers of drawn learners, each to a question near those that the learner has answered.

    Questions drawn evenly from the whole catalogue would make of every busy learner one who has touched all of it.
    """

    def __init__(self, size: world.Size, shelf_offsets: I8, shelf_rows: I8, first: I8) -> None:
        self._size = size
        self._shelf_offsets = shelf_offsets
        """(concepts+1,) where the questions of each concept begin."""
        self._shelf_rows = shelf_rows
        self._first = first
        """(learners,) the first concept of each learner's stretch."""

    @classmethod
    def of(cls, data: Path, size: world.Size) -> Self:
        """Look at where learners stand, in the store of a world that nobody has changed yet."""
        store = LmdbStore(data / STATE)
        try:
            with store.read(Partition(world.TENANT)) as reader:
                records = catalogs.load_catalog(reader)
                sets = catalogs.read_memory_sets(reader)
            first = np.zeros(size.learners, np.int64)
            distinct = min(size.learners, world.DISTINCT)
            for number in range(distinct):
                with store.read(Partition(world.TENANT, world.learner_id(number))) as reader:
                    first[number::distinct] = _first_touched(reader, sets)
        finally:
            store.close()
        catalog = build_catalog(records.concepts, records.questions, version=1)
        shelf = catalog.concept_questions
        return cls(size, shelf.offsets.astype(np.int64), shelf.rows.astype(np.int64), first)

    def request(
        self, count: int, rng: np.random.Generator, *, caller: int = 0, callers: int = 1
    ) -> pb.RecordAnswersRequest:
        """New answers of learners drawn with Zipf, given when they arrive.

        Of several callers each has learners of its own: of two calls at once, one may be recorded after the other
        though it came before, which sends a learner's log through the engine again, and a world has no logs.
        """
        numbers = world.zipf_learners(self._size, count, rng)
        learners = np.minimum(numbers - numbers % callers + caller, self._size.learners - 1)
        concepts = self._first[learners] + rng.integers(0, world.REACH, count)
        concepts = np.minimum(concepts, self._size.concepts - 1)
        starts = self._shelf_offsets[concepts]
        sizes = self._shelf_offsets[concepts + 1] - starts
        questions = self._shelf_rows[starts + (rng.random(count) * sizes).astype(np.int64)]
        right = rng.random(count) < RIGHT
        answers = [
            pb.Answer(
                answer_id=uuid.uuid4().hex,
                learner_id=world.learner_id(learner),
                question_id=world.question_id(question),
                correct=correct,
            )
            for learner, question, correct in zip(
                learners.tolist(), questions.tolist(), right.tolist(), strict=True
            )
        ]
        return pb.RecordAnswersRequest(answers=answers)


def _first_touched(reader: Reader, sets: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> int:
    """The lowest concept that the learner has answered questions of."""
    concepts = read_state(reader, sets).concepts
    own = concepts["row"][concepts["attempts"] > 0]
    return int(own.min()) if own.size else 0
