"""The bundled curriculum is sound, and the simulated classroom behaves as people do."""

import itertools
import re
from collections import defaultdict
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from server.demo.classroom import Classroom, ClassroomAnswer, newcomer, simulate_classroom
from server.demo.curriculum import Curriculum, load_curriculum, split_ids
from server.demo.true_learner import DAY_SECONDS

NOW = 1_790_000_000.0
PLACEHOLDERS = re.compile(
    r"\bquestion \d|lorem|placeholder|todo|tbd|xxx|\{|\}|about (fractions|algebra)", re.I
)


@pytest.fixture(scope="module")
def curriculum() -> Curriculum:
    return load_curriculum()


@pytest.fixture(scope="module")
def classroom(curriculum: Curriculum) -> Classroom:
    return simulate_classroom(curriculum, now=NOW)


def prerequisites(curriculum: Curriculum) -> dict[str, list[str]]:
    """Hard and soft prerequisites of every concept."""
    return {
        row["concept_id"]: split_ids(row["prerequisite_ids"]) + split_ids(row["soft_prerequisite_ids"])
        for row in curriculum.concepts
    }


def ancestors(concept_id: str, hard: dict[str, list[str]]) -> set[str]:
    """Everything a concept builds on, directly or not."""
    found: set[str] = set()
    waiting = list(hard[concept_id])
    while waiting:
        before = waiting.pop()
        if before not in found:
            found.add(before)
            waiting.extend(hard[before])
    return found


def questions_by_main_concept(curriculum: Curriculum) -> dict[str, list[dict[str, str]]]:
    grouped: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in curriculum.questions:
        grouped[split_ids(row["concept_ids"])[0]].append(row)
    return grouped


def success(answers: list[ClassroomAnswer]) -> float:
    assert len(answers) > 100, "too few answers to say anything"
    return sum(answer.correct for answer in answers) / len(answers)


def histories(curriculum: Curriculum, classroom: Classroom) -> list[list[ClassroomAnswer]]:
    """Answers of one learner to questions of one concept, for every such pair."""
    main = {row["question_id"]: split_ids(row["concept_ids"])[0] for row in curriculum.questions}
    grouped: dict[tuple[str, str], list[ClassroomAnswer]] = defaultdict(list)
    for answer in classroom.answers:
        grouped[answer.learner_id, main[answer.question_id]].append(answer)
    return list(grouped.values())


class TestConcepts:
    def test_there_are_enough_and_none_twice(self, curriculum: Curriculum) -> None:
        ids = [row["concept_id"] for row in curriculum.concepts]
        assert len(ids) >= 64
        assert len(set(ids)) == len(ids)
        titles = [row["title"] for row in curriculum.concepts]
        assert len(set(titles)) == len(titles)

    def test_every_prerequisite_stands_earlier_so_there_is_no_cycle(self, curriculum: Curriculum) -> None:
        seen: set[str] = set()
        for concept_id, before in prerequisites(curriculum).items():
            assert set(before) <= seen, f"{concept_id} needs what comes later or is unknown"
            assert len(set(before)) == len(before), f"{concept_id} names a prerequisite twice"
            seen.add(concept_id)

    def test_no_edge_follows_from_the_hard_ones(self, curriculum: Curriculum) -> None:
        hard = {row["concept_id"]: split_ids(row["prerequisite_ids"]) for row in curriculum.concepts}
        for concept_id, before in prerequisites(curriculum).items():
            implied = set().union(*(ancestors(one, hard) for one in hard[concept_id]), set())
            assert not implied & set(before), f"{concept_id} names {implied & set(before)} needlessly"

    def test_counting_is_the_only_root(self, curriculum: Curriculum) -> None:
        roots = [row["concept_id"] for row in curriculum.concepts if not row["prerequisite_ids"]]
        assert roots == ["counting-to-20"]

    def test_quadratic_equations_build_on_counting(self, curriculum: Curriculum) -> None:
        hard = {row["concept_id"]: split_ids(row["prerequisite_ids"]) for row in curriculum.concepts}
        for concept_id in ("quadratics-by-factorising", "quadratic-formula", "quadratic-problems"):
            below = ancestors(concept_id, hard)
            assert {"counting-to-20", "two-step-equations", "powers-and-roots"} <= below
            assert len(below) >= 20

    def test_every_concept_is_described(self, curriculum: Curriculum) -> None:
        for row in curriculum.concepts:
            assert row["topic"], row
            assert row["area"], row
            assert 5 <= float(row["typical_seconds"]) <= 300
            assert len(row["description"]) >= 30
            assert row["description"].endswith(".")


class TestQuestions:
    def test_every_concept_has_enough(self, curriculum: Curriculum) -> None:
        assert len(curriculum.questions) >= 700
        grouped = questions_by_main_concept(curriculum)
        for row in curriculum.concepts:
            assert len(grouped[row["concept_id"]]) >= 12, row["concept_id"]

    def test_concepts_are_known_and_ids_unique(self, curriculum: Curriculum) -> None:
        known = set(prerequisites(curriculum))
        ids = [row["question_id"] for row in curriculum.questions]
        assert len(set(ids)) == len(ids)
        for row in curriculum.questions:
            exercised = split_ids(row["concept_ids"])
            assert set(exercised) <= known, row
            assert len(set(exercised)) == len(exercised) >= 1, row

    def test_no_question_exercises_what_builds_on_its_main_concept(self, curriculum: Curriculum) -> None:
        before = prerequisites(curriculum)
        for row in curriculum.questions:
            main, *others = split_ids(row["concept_ids"])
            for other in others:
                assert main not in ancestors(other, before), row

    def test_about_a_tenth_exercise_two_concepts(self, curriculum: Curriculum) -> None:
        several = sum(";" in row["concept_ids"] for row in curriculum.questions)
        assert 0.07 <= several / len(curriculum.questions) <= 0.2

    def test_texts_are_real_and_all_different(self, curriculum: Curriculum) -> None:
        texts = [re.sub(r"\s+", " ", row["text"]).casefold() for row in curriculum.questions]
        assert len(set(texts)) == len(texts)
        for row in curriculum.questions:
            assert 10 <= len(row["text"]) <= 300, row
            assert row["text"].strip() == row["text"], row
            assert not PLACEHOLDERS.search(row["text"]), row

    def test_changing_only_the_numbers_does_not_make_a_concept(self, curriculum: Curriculum) -> None:
        for concept_id, rows in questions_by_main_concept(curriculum).items():
            shapes = {re.sub(r"[\d.,/]+", "0", row["text"]) for row in rows}
            assert len(shapes) >= 6, concept_id

    def test_difficulty_rises_within_a_concept(self, curriculum: Curriculum) -> None:
        for concept_id, rows in questions_by_main_concept(curriculum).items():
            difficulties = [float(row["difficulty"]) for row in rows]
            assert difficulties == sorted(set(difficulties)), concept_id
            assert 0.0 <= difficulties[0] <= 0.25, concept_id
            assert 0.6 <= difficulties[-1] <= 1.0, concept_id

    def test_later_concepts_start_no_easier(self, curriculum: Curriculum) -> None:
        grouped = questions_by_main_concept(curriculum)
        means = [
            sum(float(row["difficulty"]) for row in grouped[concept["concept_id"]])
            / len(grouped[concept["concept_id"]])
            for concept in curriculum.concepts
        ]
        assert sum(means[-20:]) > sum(means[:20])

    def test_time_and_tags_are_sensible(self, curriculum: Curriculum) -> None:
        kinds = {"procedure", "word-problem", "misconception", "reasoning", "picture"}
        seen: set[str] = set()
        for row in curriculum.questions:
            assert 5 <= float(row["expected_seconds"]) <= 400, row
            kind, level = split_ids(row["tags"])
            assert level in {"starter", "core", "stretch"}
            seen.add(kind)
        assert seen == kinds

    def test_no_concept_is_procedure_alone(self, curriculum: Curriculum) -> None:
        for concept_id, rows in questions_by_main_concept(curriculum).items():
            assert len({split_ids(row["tags"])[0] for row in rows}) >= 3, concept_id


class TestClassroom:
    def test_it_is_the_size_of_a_school(self, classroom: Classroom) -> None:
        assert len(classroom.learners) == 300
        assert 25_000 <= len(classroom.answers) <= 32_000
        assert len({learner.display_name for learner in classroom.learners}) == 300
        assert {answer.learner_id for answer in classroom.answers} == set(classroom.truth)

    def test_the_same_seed_gives_the_same_history(self, curriculum: Curriculum) -> None:
        first = simulate_classroom(curriculum, now=NOW, seed=3, n_learners=12)
        again = simulate_classroom(curriculum, now=NOW, seed=3, n_learners=12)
        other = simulate_classroom(curriculum, now=NOW, seed=4, n_learners=12)
        assert (first.learners, first.answers) == (again.learners, again.answers)
        assert first.answers != other.answers

    def test_a_learner_does_not_depend_on_the_class_size(self, curriculum: Curriculum) -> None:
        small = simulate_classroom(curriculum, now=NOW, n_learners=2)
        larger = simulate_classroom(curriculum, now=NOW, n_learners=5)
        mine = [answer for answer in larger.answers if answer.learner_id == "learner-002"]
        assert mine == [answer for answer in small.answers if answer.learner_id == "learner-002"]

    def test_answers_are_well_formed_and_in_order(self, curriculum: Curriculum, classroom: Classroom) -> None:
        known = {row["question_id"] for row in curriculum.questions}
        joined = {learner.learner_id: learner.created_at for learner in classroom.learners}
        assert len({answer.answer_id for answer in classroom.answers}) == len(classroom.answers)
        moments = [answer.answered_at for answer in classroom.answers]
        assert moments == sorted(moments)
        for answer in classroom.answers:
            assert answer.question_id in known
            assert joined[answer.learner_id] <= answer.answered_at
            assert 0 < answer.duration_ms <= 900_000
            assert 0 <= answer.hints <= 3

    @pytest.mark.parametrize("hour", [0, 5, 10, 15, 20])
    def test_history_ends_shortly_before_now(self, curriculum: Curriculum, hour: int) -> None:
        now = NOW + 3600.0 * hour
        history = simulate_classroom(curriculum, now=now, n_learners=150, weeks=2).answers
        assert 0.0 < now - history[-1].answered_at < 3 * 3600.0
        assert 13.0 < (now - history[0].answered_at) / DAY_SECONDS <= 14.0

    def test_harder_questions_are_failed_more_often(
        self, curriculum: Curriculum, classroom: Classroom
    ) -> None:
        difficulty = {row["question_id"]: float(row["difficulty"]) for row in curriculum.questions}
        # Once the concept is at work: the hardest questions are met by those who stay longest, and go in the end.
        known = [
            answer
            for history in histories(curriculum, classroom)
            for last, answer in itertools.pairwise(history)
            if last.correct
        ]
        easy = [answer for answer in known if difficulty[answer.question_id] < 0.25]
        hard = [answer for answer in known if difficulty[answer.question_id] > 0.6]
        assert success(easy) > success(hard) + 0.08

    def test_questions_come_back_within_seconds_minutes_hours_and_days(self, classroom: Classroom) -> None:
        last: dict[tuple[str, str], float] = {}
        gaps: list[float] = []
        for answer in classroom.answers:
            met = answer.learner_id, answer.question_id
            if met in last:
                gaps.append(answer.answered_at - answer.duration_ms / 1000.0 - last[met])
            last[met] = answer.answered_at
        edges = (0.0, 60.0, 600.0, 3600.0, 6 * 3600.0, DAY_SECONDS, 60 * DAY_SECONDS)
        counts = [sum(low <= gap < high for gap in gaps) for low, high in itertools.pairwise(edges)]
        assert min(counts) >= 50, counts
        assert sum(counts) == len(gaps)

    def test_learners_improve_on_a_concept(self, curriculum: Curriculum, classroom: Classroom) -> None:
        first = [history[0] for history in histories(curriculum, classroom)]
        fifth = [history[4] for history in histories(curriculum, classroom) if len(history) > 4]
        assert success(fifth) > success(first) + 0.15

    def test_forgetting_shows_after_a_gap(self, curriculum: Curriculum, classroom: Classroom) -> None:
        fresh: list[ClassroomAnswer] = []
        stale: list[ClassroomAnswer] = []
        for history in histories(curriculum, classroom):
            for last_but_one, last, answer in zip(history, history[1:], history[2:], strict=False):
                days = (answer.answered_at - last.answered_at) / DAY_SECONDS
                if last_but_one.correct and last.correct and days < 1.0:
                    fresh.append(answer)
                elif last_but_one.correct and last.correct and days > 10.0:
                    stale.append(answer)
        assert success(fresh) > success(stale) + 0.06

    def test_some_keep_streaks_and_some_leave_gaps(self, classroom: Classroom) -> None:
        zones = {learner.learner_id: ZoneInfo(learner.time_zone) for learner in classroom.learners}
        days: dict[str, set[int]] = defaultdict(set)
        for answer in classroom.answers:
            local = datetime.fromtimestamp(answer.answered_at, zones[answer.learner_id])
            days[answer.learner_id].add(local.toordinal())
        streaks = [
            sum(max(mine) - back in mine for back in range(7)) == 7
            and (max(mine) >= datetime.fromtimestamp(NOW, ZoneInfo("UTC")).toordinal() - 1)
            for mine in days.values()
        ]
        gaps = [
            any(later - earlier > 7 for earlier, later in zip(sorted(mine), sorted(mine)[1:], strict=False))
            for mine in days.values()
        ]
        assert sum(streaks) >= 5
        assert 50 <= sum(gaps) <= 280


class TestTrueLearner:
    def test_a_newcomer_knows_what_was_named_and_what_it_builds_on(self, curriculum: Curriculum) -> None:
        learner = newcomer(curriculum, knows=("tables-to-10",), now=NOW)
        assert learner.recall("tables-to-10", NOW) > 0.8
        assert learner.recall("equal-groups", NOW) > 0.8
        assert learner.recall("division-facts", NOW) == 0.0
        assert learner.chance("tables-to-10-01", NOW) > 0.8 > 0.45 > learner.chance("division-facts-01", NOW)

    def test_practice_teaches_what_is_within_reach_and_nothing_beyond(self, curriculum: Curriculum) -> None:
        learner = newcomer(curriculum, knows=("tables-to-10", "sharing-equally"), now=NOW)
        for step in range(40):
            learner.answer("division-facts-03", NOW + 60.0 * step)
            learner.answer("quadratic-formula-03", NOW + 60.0 * step + 30.0)
        later = NOW + 3600.0
        assert learner.recall("division-facts", later) > 0.9
        assert learner.recall("quadratic-formula", later) == 0.0

    def test_what_was_just_learned_fades(self, curriculum: Curriculum) -> None:
        learner = newcomer(curriculum, knows=("tables-to-10", "sharing-equally"), now=NOW)
        for step in range(40):
            learner.answer("division-facts-03", NOW + 60.0 * step)
        soon, much_later = NOW + 3600.0, NOW + 60 * DAY_SECONDS
        assert learner.recall("division-facts", much_later) < learner.recall("division-facts", soon) - 0.1

    def test_a_classmate_can_answer_on(self, curriculum: Curriculum) -> None:
        twins = [simulate_classroom(curriculum, now=NOW, n_learners=1).truth["learner-001"] for _ in range(2)]
        questions = [row["question_id"] for row in curriculum.questions[:50]]
        given = [[twin.answer(question_id, NOW) for question_id in questions] for twin in twins]
        assert given[0] == given[1]
        assert {answer.correct for answer in given[0]} <= {True, False}
        assert all(answer.duration_ms > 0 for answer in given[0])
