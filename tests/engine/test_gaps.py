"""What a learner is stuck at, and what lies behind it, against a search said slowly."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import Catalog, build_catalog
from engine.gaps import Cause, CauseKind, Gap, find_gaps, gaps_among
from engine.learner import ConceptView, LearnerModel, LearnerState, absorb, concept_view
from engine.types import AnswerBatch, Concept, Prerequisite, Question


@dataclass
class Standing:
    """Where a learner stands with a concept."""

    mastery: float = 0.6
    outcomes: str = ""
    """Of the own answers, oldest first: "+" right, "-" wrong."""
    mastered: bool = False
    was_mastered: bool = False
    needs: dict[int, bool] = field(default_factory=dict)
    """Prerequisite rows, and whether each is hard."""


def world(standings: list[Standing]) -> tuple[LearnerState, ConceptView, Catalog]:
    concepts = [
        Concept(
            f"c{row}",
            row,
            prerequisites=tuple(Prerequisite(f"c{need}", hard=hard) for need, hard in standing.needs.items()),
        )
        for row, standing in enumerate(standings)
    ]
    catalog = build_catalog(concepts, [], version=1)
    touched = [row for row, standing in enumerate(standings) if standing.outcomes]
    records = np.zeros(len(touched), LearnerState.CONCEPT)
    for record, row in zip(records, touched, strict=True):
        record["row"] = row
        record["attempts"] = len(standings[row].outcomes)
        pattern = 1
        for outcome in standings[row].outcomes[-7:]:
            pattern = pattern << 1 | (outcome == "+")
        record["pattern"] = pattern
    n = len(standings)
    nowhere = np.full(n, np.nan)
    view = ConceptView(
        mastery=np.array([s.mastery for s in standings]),
        mastery_sd=np.full(n, 0.1),
        retrievability=nowhere,
        stability=nowhere,
        difficulty=nowhere,
        next_review_at=nowhere,
        last_at=nowhere,
        mastered_at=np.array([1.0 if s.mastered or s.was_mastered else math.nan for s in standings]),
        fades_at=nowhere,
        attempts=np.array([len(s.outcomes) for s in standings], np.uint32),
        correct=np.array([s.outcomes.count("+") for s in standings], np.uint32),
        lapses=np.zeros(n, np.uint32),
        implied=np.zeros(n, np.uint32),
        mastered=np.array([s.mastered for s in standings], np.uint8),
    )
    empty = LearnerState.empty()
    return LearnerState(empty.header, records, empty.recent), view, catalog


def gaps(*standings: Standing) -> list[Gap]:
    return find_gaps(*world(list(standings)))


def chain(*standings: Standing) -> list[Gap]:
    """Each concept rests hard on the one before it."""
    for row, standing in enumerate(standings):
        standing.needs = {row - 1: True} if row else {}
    return gaps(*standings)


SOUND = Standing(0.9, "+++", mastered=True)
STUCK = Standing(0.4, "+--")


def fresh(standing: Standing) -> Standing:
    return Standing(standing.mastery, standing.outcomes, standing.mastered, standing.was_mastered)


@pytest.mark.parametrize(
    ("outcomes", "mastery", "stuck"),
    [
        ("-", 0.4, False),
        ("--", 0.4, True),
        ("+--", 0.4, True),
        ("-+-", 0.4, True),
        ("--+", 0.4, True),
        ("-++", 0.4, False),
        ("-----++", 0.4, False),
        ("+++++--", 0.69, True),
        ("+++++--", 0.70, False),
        ("+++++++++--", 0.5, True),
    ],
)
def test_stuck_is_two_wrong_of_the_last_three_below_mastery(
    outcomes: str, mastery: float, stuck: bool
) -> None:
    assert bool(gaps(Standing(mastery, outcomes))) == stuck


def test_the_deepest_shown_weakness_is_the_cause() -> None:
    (weak, gap) = chain(fresh(SOUND), Standing(0.5, "-+-"), Standing(0.6, "+"), fresh(STUCK))
    assert weak.row == 3
    assert gap == Gap(1, 2, [])
    assert weak.causes == [Cause(1, CauseKind.NOT_LEARNED, (1, 2, 3))]


def test_what_is_forgotten_is_told_from_what_was_never_learned() -> None:
    (faded,) = chain(Standing(0.6, "+++", mastered=True), fresh(STUCK))
    assert faded.causes == [Cause(0, CauseKind.FORGOTTEN, (0, 1))]
    (lost,) = chain(Standing(0.6, "+++", was_mastered=True), fresh(STUCK))
    assert lost.causes[0].kind is CauseKind.FORGOTTEN


def test_of_untested_prerequisites_the_nearest_is_named() -> None:
    (gap,) = chain(Standing(), Standing(), fresh(STUCK))
    assert gap.causes == [Cause(1, CauseKind.UNTESTED, (1, 2))]
    (deeper,) = chain(Standing(0.5, "+"), Standing(), fresh(STUCK))
    assert deeper.causes == [Cause(0, CauseKind.NOT_LEARNED, (0, 1, 2))]


def test_what_a_dependent_proves_is_no_cause() -> None:
    untested, proof, stuck = Standing(), Standing(0.9, "+++"), fresh(STUCK)
    proof.needs, stuck.needs = {0: True}, {0: True}
    (gap,) = gaps(untested, proof, stuck)
    assert gap.causes == []


def test_a_soft_prerequisite_counts_only_when_shown_to_be_weak() -> None:
    stuck = fresh(STUCK)
    stuck.needs = {0: False, 1: False, 2: True}
    (gap,) = gaps(Standing(), Standing(0.3, "+"), Standing(0.5, "+"), stuck)
    assert [(cause.row, cause.kind) for cause in gap.causes] == [
        (2, CauseKind.NOT_LEARNED),
        (1, CauseKind.NOT_LEARNED),
    ]


def test_gaps_come_weakest_first_and_of_what_was_asked() -> None:
    made = world([Standing(0.5, "--"), Standing(0.3, "--"), Standing(0.4, "--")])
    assert [gap.row for gap in find_gaps(*made)] == [1, 2, 0]
    assert [gap.row for gap in find_gaps(*made, most=2)] == [1, 2]
    assert [gap.row for gap in find_gaps(*made, among=[0, 2, 99])] == [2, 0]
    assert find_gaps(*made, among=[]) == []


def test_a_very_long_chain_is_followed_to_its_end() -> None:
    standings = [Standing(0.5, "+") for _ in range(3_000)]
    found = chain(*standings, fresh(STUCK))
    assert found[0].causes == [Cause(0, CauseKind.NOT_LEARNED, tuple(range(3_001)))]


@st.composite
def _standings(draw: st.DrawFn) -> list[Standing]:
    made = []
    for row in range(draw(st.integers(2, 9))):
        standing = Standing(
            mastery=draw(st.sampled_from([0.2, 0.3, 0.45, 0.6, 0.69, 0.71, 0.8, 0.9])),
            outcomes=draw(st.text("+-", max_size=5)),
        )
        standing.needs = (
            draw(st.dictionaries(st.integers(0, row - 1), st.booleans(), max_size=3)) if row else {}
        )
        standing.mastered = bool(standing.outcomes) and draw(st.booleans())
        made.append(standing)
    return made


def slowly(standings: list[Standing]) -> dict[int, set[int]]:
    """Every cause of every concept that is stuck."""
    proven = []
    for s in standings:
        level = s.mastery if s.outcomes else 0.0
        proven.append(1.0 if s.mastered and s.mastery >= 0.7 else level)
    for _ in standings:
        for row, s in enumerate(standings):
            for need, hard in s.needs.items():
                if hard and proven[row] >= 0.7:
                    proven[need] = max(proven[need], proven[row])

    def shown(row: int) -> bool:
        return bool(standings[row].outcomes)

    def weak(row: int) -> list[int]:
        return [n for n, hard in standings[row].needs.items() if proven[n] < 0.7 and (hard or shown(n))]

    def causes(row: int) -> set[int]:
        return set().union(*(at_or_beneath(need) for need in weak(row)))

    def at_or_beneath(row: int) -> set[int]:
        evident = {cause for cause in causes(row) if shown(cause)}
        return evident or {row}

    return {
        row: causes(row)
        for row, s in enumerate(standings)
        if s.outcomes[-3:].count("-") >= 2 and s.mastery < 0.7
    }


@settings(max_examples=300, deadline=None)
@given(_standings())
def test_gaps_are_what_a_slow_search_finds(standings: list[Standing]) -> None:
    expected = slowly(standings)
    found = gaps(*standings)
    assert {gap.row for gap in found} == set(expected)
    for gap in found:
        rows = {cause.row for cause in gap.causes}
        assert rows <= expected[gap.row]
        assert len(gap.causes) == len(rows) == min(len(expected[gap.row]), 3)
        kinds = [cause.kind is CauseKind.UNTESTED for cause in gap.causes]
        assert kinds == sorted(kinds)
        for cause in gap.causes:
            assert (cause.path[0], cause.path[-1]) == (cause.row, gap.row)
            for below, above in zip(cause.path, cause.path[1:], strict=False):
                assert below in standings[above].needs


def learned(rng: np.random.Generator, concepts: int) -> tuple[LearnerState, Catalog]:
    """A learner who answers badly, in a graph of chance."""
    catalog = build_catalog(
        [
            Concept(
                f"c{row}",
                row,
                prerequisites=tuple(
                    Prerequisite(f"c{need}", hard=bool(rng.random() < 0.7))
                    for need in sorted(set(rng.integers(max(0, row - 6), row, 3).tolist()))
                )
                if row
                else (),
            )
            for row in range(concepts)
        ],
        [Question(f"q{row}", row, (row,)) for row in range(concepts)],
        version=1,
    )
    asked = rng.integers(0, concepts, 4 * concepts).astype(np.uint32)
    offsets, rows, weights = catalog.exercised_many(asked)
    n, m = len(asked), len(rows)
    batch = AnswerBatch(
        question=asked,
        correct=(rng.random(n) < 0.4).astype(np.uint8),
        answered_at=np.arange(1e9, 1e9 + 3600.0 * n, 3600.0),
        base_logit=np.zeros(n, np.float32),
        grade=np.full(n, 3, np.uint8),
        duration_ms=np.zeros(n, np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.zeros(n, np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=offsets,
        concept=rows,
        weight=weights,
        mastery=np.full(m, np.nan, np.float32),
        mastery_sd=np.full(m, np.nan, np.float32),
    )
    return absorb(LearnerState.empty(), batch, LearnerModel.priors()).state, catalog


@pytest.mark.parametrize("seed", range(5))
def test_gaps_among_some_rows_are_those_of_the_whole_view(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, catalog = learned(rng, 40)
    model, now = LearnerModel.priors(), 1e9 + 3600.0 * 200
    view = concept_view(state, catalog.concept_count, model, now)
    rows = rng.permutation(60)[:40].astype(np.int64)
    gaps, footing = gaps_among(state, rows, catalog, model, now)
    assert gaps == find_gaps(state, view, catalog, among=rows.tolist())
    assert gaps
    np.testing.assert_array_equal(footing.mastery, view.mastery)
    np.testing.assert_array_equal(footing.attempts, view.attempts)
