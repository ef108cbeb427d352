"""Plans in worlds whose answer is obvious: a chain of concepts, a question or more each."""

from typing import Any

import numpy as np
import pytest

from engine.agenda import MOST_ANSWERS, concept_seconds, gap_to, plan_days
from engine.catalog import Catalog, build_catalog
from engine.learner import ConceptView, LearnerModel, LearnerState, QuestionConcepts, absorb, concept_view
from engine.types import AnswerBatch, Concept, Prerequisite, Question

DAY = 86_400.0
NOW = 20_000.5 * DAY
ENDS = (20_001.0 + np.arange(7, dtype=np.float64)) * DAY
DECAY = 0.1542


def chain(*names: str, seconds: float = 60.0, without_questions: tuple[str, ...] = ()) -> Catalog:
    """Each concept needs the one before it; two questions each."""
    concepts = [
        Concept(name, row, prerequisites=(Prerequisite(names[row - 1]),) if row else ())
        for row, name in enumerate(names)
    ]
    asked = [row for row, name in enumerate(names) if name not in without_questions for _ in range(2)]
    questions = [
        Question(f"q{i}", i, (row,), expected_seconds=seconds + 20.0 * (i % 2)) for i, row in enumerate(asked)
    ]
    return build_catalog(concepts, questions, version=1)


def seen(catalog: Catalog, answers: list[tuple[int, bool, float]]) -> tuple[LearnerState, ConceptView]:
    """A learner who gave answers (concept row, correct, days ago), as they stand at NOW."""
    n = len(answers)
    model = LearnerModel.priors().with_catalog(
        QuestionConcepts.of(catalog.question_concepts.offsets, catalog.question_concepts.rows),
        catalog.concept_count,
    )
    batch = AnswerBatch(
        question=np.array([2 * row for row, _, _ in answers], np.uint32),
        correct=np.array([right for _, right, _ in answers], np.uint8),
        answered_at=np.array([NOW - ago * DAY for _, _, ago in answers]),
        base_logit=np.full(n, 0.6, np.float32),
        grade=np.array([3 if right else 1 for _, right, _ in answers], np.uint8),
        duration_ms=np.full(n, 30_000, np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([int(NOW / DAY - ago) for _, _, ago in answers], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.arange(n + 1, dtype=np.int32),
        concept=np.array([row for row, _, _ in answers], np.uint32),
        weight=np.ones(n, np.float32),
        mastery=np.full(n, np.nan, np.float32),
        mastery_sd=np.full(n, np.nan, np.float32),
    )
    state = absorb(LearnerState.empty(), batch, model).state
    return state, concept_view(state, catalog.concept_count, model, NOW)


def mastered(row: int) -> list[tuple[int, bool, float]]:
    return [(row, True, 1.0 - i / 100) for i in range(12)]


def plan(catalog: Catalog, answers: list[tuple[int, bool, float]], **more: Any) -> Any:
    state, view = seen(catalog, answers)
    options: dict[str, Any] = {"target_seconds": 600.0, "decay": DECAY, "day_ends": ENDS, **more}
    return plan_days(state, view, catalog, **options)


def test_seconds_of_a_concept_are_the_mean_of_its_questions() -> None:
    assert concept_seconds(chain("a", "b", without_questions=("b",))).tolist() == [70.0, 0.0]


def test_concepts_open_one_after_the_other() -> None:
    days = plan(chain("a", "b", "c"), [])
    assert [day.openings for day in days[:3]] == [[0], [1], [2]]
    assert all(day.expected_seconds <= 600.0 for day in days)
    assert [day.openings for day in days[3:]] == [[]] * 4


def test_a_small_budget_spreads_a_concept_over_days() -> None:
    days = plan(chain("a", "b"), [], target_seconds=70.0)
    opened = [i for i, day in enumerate(days) if day.openings]
    assert opened[0] == 0
    assert len(opened) == 1 or opened[1] > 2
    assert all(day.expected_seconds == pytest.approx(70.0) for day in days)


def test_what_is_due_today_and_not_mastered_goes_on_after_its_review() -> None:
    days = plan(chain("a", "b"), [(0, False, 5.0), (0, False, 4.0)])
    assert days[0].reviews.tolist() == [0]
    assert days[0].openings == []
    assert days[1].openings == [0]
    assert any(1 in day.openings for day in days[2:])


def test_a_mastered_concept_is_only_reviewed_and_opens_the_next() -> None:
    days = plan(chain("a", "b"), mastered(0), day_ends=(20_001.0 + np.arange(30)) * DAY)
    assert days[0].openings == [1]
    assert sum(0 in day.openings for day in days) == 0
    reviewed = [i for i, day in enumerate(days) if 0 in day.reviews]
    assert len(reviewed) == 1
    due = days[reviewed[0]]
    assert 0.5 < due.recall[0] < 0.9


def test_what_is_overdue_belongs_to_today_most_urgent_first() -> None:
    answers = [(0, False, 9.0), (1, True, 9.0), (1, True, 8.0), (2, False, 9.0), (2, False, 8.9)]
    catalog = build_catalog(
        [Concept(name, row) for row, name in enumerate("abc")],
        [Question(f"q{i}", i, (i // 2,), expected_seconds=30.0) for i in range(6)],
        version=1,
    )
    days = plan(catalog, sorted(answers, key=lambda answer: -answer[2]))
    recall = days[0].recall.tolist()
    assert len(recall) >= 2
    assert recall == sorted(recall)
    assert not set(days[0].openings) & set(days[0].reviews.tolist())


def test_reviews_leave_what_remains_of_the_goal_to_new_concepts() -> None:
    catalog = chain("a", "b")
    days = plan(catalog, [(0, False, 9.0)], target_seconds=70.0)
    assert days[0].reviews.tolist() == [0]
    assert (days[0].openings, days[0].expected_seconds) == ([], 70.0)


def test_the_goals_prerequisites_come_first() -> None:
    concepts = [Concept("hub", 0), Concept("x", 1, prerequisites=(Prerequisite("hub"),)), Concept("side", 2)]
    catalog = build_catalog(
        concepts, [Question(f"q{i}", i, (i,), expected_seconds=100.0) for i in range(3)], version=1
    )
    assert plan(catalog, [], target_seconds=100.0)[0].openings == [0]
    assert plan(catalog, [], target_seconds=100.0, goal=2)[0].openings == [2]


def test_a_concept_without_questions_is_not_planned() -> None:
    days = plan(chain("a", "b", without_questions=("a",)), [])
    assert all(not day.openings and not len(day.reviews) for day in days)


def test_work_on_a_concept_is_bounded() -> None:
    days = plan(chain("a"), [(0, False, i / 100 + 0.01) for i in range(30, 0, -1)], target_seconds=1e9)
    assert sum(day.expected_seconds for day in days) <= (MOST_ANSWERS + 1) * 70.0


def test_an_empty_catalogue_has_an_empty_plan() -> None:
    catalog = build_catalog([], [], version=0)
    state = LearnerState.empty()
    days = plan_days(
        state,
        concept_view(state, 0, LearnerModel.priors(), NOW),
        catalog,
        day_ends=ENDS,
        target_seconds=600.0,
        decay=DECAY,
    )
    assert [len(day.openings) + len(day.reviews) for day in days] == [0] * 7


def test_the_gap_ends_at_what_is_known() -> None:
    catalog = chain("a", "b", "c", "d")
    assert gap_to(3, seen(catalog, [])[1], catalog) == [0, 1, 2, 3]
    assert gap_to(3, seen(catalog, mastered(1))[1], catalog) == [2, 3]
    assert gap_to(1, seen(catalog, mastered(1))[1], catalog) == []
    assert gap_to(0, seen(catalog, mastered(2))[1], catalog) == [0]
