"""A simulated classroom: learners with their own ability, pace and habits, and weeks of their practice.

Everything follows from the seed and `now`. It writes history only; it never sees a recommendation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from server.demo.curriculum import Curriculum
from server.demo.true_learner import DAY_SECONDS, Syllabus, Traits, TrueLearner

QUIET_SECONDS = 60.0
"""The history ends at least this long before now."""
FINISHED_STREAK = 3
LONGEST_STAY = 7
"""Answers on a concept without a run of right ones after which a learner turns to what it builds on."""
SITS_DOWN_AGAIN = 0.12
"""Chance of a second session, hours after the first, on a day of practice."""
INTERRUPTED = 0.06
"""Chance of a break of minutes before the next question instead of a pause of seconds."""
COMES_BACK = 0.06
"""Chance to take up a question that was failed earlier instead of going on."""
MOST_FAILED = 8
"""How many failed questions a learner keeps in mind."""
RECENT_CONCEPTS = 15
"""How far back in the textbook earlier schooling left gaps, and review reaches."""

FIRST_NAMES = (
    "Amara",
    "Ben",
    "Chloe",
    "Diego",
    "Elif",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kavya",
    "Leo",
    "Mei",
    "Noah",
    "Olga",
    "Pablo",
    "Quinn",
    "Rosa",
    "Samir",
    "Tara",
    "Umar",
    "Vera",
    "Wei",
    "Ximena",
    "Yusuf",
    "Zoe",
    "Aiko",
    "Bruno",
    "Carmen",
    "Dana",
    "Emeka",
    "Freya",
    "Goran",
    "Hana",
    "Ivan",
    "Jade",
    "Kofi",
    "Lena",
    "Mateo",
    "Nadia",
    "Oscar",
    "Priya",
    "Ravi",
    "Sofia",
    "Tomas",
    "Uma",
    "Viktor",
    "Wanda",
    "Yara",
    "Zane",
)
TIME_ZONES = (
    "Europe/London",
    "Europe/Berlin",
    "Africa/Lagos",
    "Africa/Nairobi",
    "Asia/Kolkata",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Pacific/Auckland",
    "America/Sao_Paulo",
    "America/New_York",
    "America/Los_Angeles",
)


@dataclass(frozen=True, slots=True)
class ClassroomLearner:
    """A learner as a platform would register one."""

    learner_id: str
    display_name: str
    time_zone: str
    """IANA name."""
    created_at: float
    """Seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class ClassroomAnswer:
    """One answer as a platform would record it."""

    answer_id: str
    learner_id: str
    question_id: str
    correct: bool
    answered_at: float
    """Seconds since the Unix epoch."""
    duration_ms: int
    hints: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Classroom:
    """Learners, what they answered, and the truth about them."""

    learners: tuple[ClassroomLearner, ...]
    answers: tuple[ClassroomAnswer, ...]
    """In order of time."""
    truth: dict[str, TrueLearner]
    """By learner id, as they are when the history ends; each can answer on."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How often a learner practises."""

    weekday: float
    """Chance to practise on a day from Monday to Friday."""
    weekend: float
    keeps_days: float
    """Days in which the chance falls to 37 %: how long the first zeal lasts."""


HABITS = (
    (0.12, Habit(weekday=0.93, weekend=0.88, keeps_days=2000.0)),
    (0.33, Habit(weekday=0.45, weekend=0.20, keeps_days=400.0)),
    (0.15, Habit(weekday=0.08, weekend=0.75, keeps_days=400.0)),
    (0.30, Habit(weekday=0.18, weekend=0.15, keeps_days=300.0)),
    (0.10, Habit(weekday=0.70, weekend=0.40, keeps_days=14.0)),
)


def simulate_classroom(
    curriculum: Curriculum, *, now: float, seed: int = 7, n_learners: int = 300, weeks: int = 8
) -> Classroom:
    """Play `weeks` of practice by `n_learners`, ending shortly before `now` (seconds since the epoch)."""
    syllabus = Syllabus.of(curriculum)
    learners: list[ClassroomLearner] = []
    answers: list[ClassroomAnswer] = []
    truth: dict[str, TrueLearner] = {}
    for number in range(n_learners):
        rng = Random(f"classroom {seed} learner {number}")
        learner = _register(number, now, weeks, rng)
        practice = _Practice(learner, syllabus, rng)
        learners.append(learner)
        truth[learner.learner_id] = practice.true_learner
        answers.extend(practice.play(now - QUIET_SECONDS))
    answers.sort(key=lambda answer: (answer.answered_at, answer.answer_id))
    return Classroom(learners=tuple(learners), answers=tuple(answers), truth=truth)


def newcomer(curriculum: Curriculum, *, knows: tuple[str, ...], now: float, seed: int = 7) -> TrueLearner:
    """Make a learner of ordinary traits who knows the named concepts and what they build on, nothing else."""
    syllabus = Syllabus.of(curriculum)
    known: set[int] = set()
    waiting = [syllabus.concept_at[concept_id] for concept_id in knows]
    while waiting:
        concept = waiting.pop()
        if concept not in known:
            known.add(concept)
            waiting.extend(syllabus.hard[concept])
    learner = TrueLearner(syllabus, Traits(), Random(f"newcomer {seed}"))
    learner.teach([syllabus.concept_ids[concept] for concept in known], now)
    return learner


def _register(number: int, now: float, weeks: int, rng: Random) -> ClassroomLearner:
    initial = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(7 * (number // len(FIRST_NAMES)) + number) % 26]
    # Half of the class is there from the first day; the others join until a week before the end.
    late = 0.0 if rng.random() < 0.5 else rng.random()
    return ClassroomLearner(
        learner_id=f"learner-{number + 1:03d}",
        display_name=f"{FIRST_NAMES[number % len(FIRST_NAMES)]} {initial}.",
        time_zone=rng.choice(TIME_ZONES),
        created_at=float(int(now - DAY_SECONDS * 7.0 * (weeks - late * max(0, weeks - 1)))),
    )


def _draw_traits(rng: Random) -> Traits:
    ability = rng.gauss(0.0, 1.0)
    return Traits(
        learning_rate=min(0.7, max(0.12, 0.45 + 0.10 * ability)),
        slip=min(0.2, max(0.01, 0.05 - 0.015 * ability + 0.01 * rng.gauss(0.0, 1.0))),
        guess=rng.uniform(0.2, 0.4),
        fading=min(0.6, max(0.15, 0.35 - 0.04 * ability + 0.08 * rng.gauss(0.0, 1.0))),
        pace=rng.lognormvariate(-0.05 * ability, 0.25),
    )


class _Practice:
    """One learner at the textbook: the concept at hand, some review, now and then a leap ahead."""

    def __init__(self, learner: ClassroomLearner, syllabus: Syllabus, rng: Random) -> None:
        self.learner = learner
        self.true_learner = TrueLearner(syllabus, _draw_traits(rng), rng)
        self._syllabus = syllabus
        self._rng = rng
        self._habit = rng.choices([habit for _, habit in HABITS], [share for share, _ in HABITS])[0]
        self._per_session = rng.uniform(4.0, 9.0)
        self._retries = rng.uniform(0.0, 0.5)
        """Chance to try a failed question again at once."""
        self._hour = rng.gauss(17.0, 1.7) if rng.random() < 0.75 else rng.gauss(9.0, 1.5)
        self._at = rng.randrange(0, len(syllabus.concept_ids) - 20)
        """How far the learner is in the textbook, as a position."""
        self._detour = -1
        """A prerequisite to mend before going on; -1 for none."""
        self._tries = [0] * len(syllabus.concept_ids)
        self._streak = [0] * len(syllabus.concept_ids)
        self._stuck = [0] * len(syllabus.concept_ids)
        self._answered = 0
        self._last_question = -1
        self._failed: list[int] = []
        """Questions failed and not passed since, the latest last."""
        solid = self._at - RECENT_CONCEPTS
        schooled = [
            concept_id
            for at, concept_id in enumerate(syllabus.concept_ids[: self._at])
            if at < solid or rng.random() < 0.97
        ]
        self.true_learner.teach(schooled, learner.created_at)

    def play(self, until: float) -> Iterator[ClassroomAnswer]:
        """Practise from joining to `until` (seconds)."""
        for number, started_at in enumerate(self._session_starts(until), start=1):
            session_id = f"{self.learner.learner_id}-s{number:03d}"
            moment = started_at
            for _ in range(max(2, round(self._rng.gauss(self._per_session, 2.5)))):
                question = self._choose()
                question_id = self._syllabus.question_ids[question]
                answer = self.true_learner.answer(question_id, moment)
                moment += answer.duration_ms / 1000.0
                if moment > until:
                    return
                self._note(question, answer.correct)
                self._answered += 1
                yield ClassroomAnswer(
                    answer_id=f"{self.learner.learner_id}-a{self._answered:04d}",
                    learner_id=self.learner.learner_id,
                    question_id=question_id,
                    correct=answer.correct,
                    answered_at=round(moment, 3),
                    duration_ms=answer.duration_ms,
                    hints=answer.hints,
                    session_id=session_id,
                )
                moment += self._pause()

    def _session_starts(self, until: float) -> list[float]:
        rng = self._rng
        zone = ZoneInfo(self.learner.time_zone)
        first = datetime.fromtimestamp(self.learner.created_at, UTC).astimezone(zone).date()
        days = int((until - self.learner.created_at) / DAY_SECONDS) + 2
        away = rng.randrange(1, days) if rng.random() < 0.5 else days
        back = away + rng.randrange(4, 15)
        starts: list[float] = []
        for day in range(days):
            today = first + timedelta(days=day)
            keen = self._habit.weekend if today.weekday() >= 5 else self._habit.weekday
            # The first evening always counts: everybody tries a new thing once.
            practises = day == 0 or rng.random() < keen * 2.718 ** (-day / self._habit.keeps_days)
            hour = min(22.5, max(6.0, rng.gauss(self._hour, 1.2)))
            if practises and not away <= day < back:
                midnight = datetime.combine(today, time(), zone).timestamp()
                start = midnight + 3600.0 * hour
                starts.append(max(start, self.learner.created_at) if day == 0 else start)
                if rng.random() < SITS_DOWN_AGAIN:
                    starts.append(starts[-1] + 3600.0 * rng.uniform(1.0, 5.0))
        return [start for start in starts if self.learner.created_at <= start <= until]

    def _pause(self) -> float:
        """Seconds until the next question is looked at."""
        rng = self._rng
        if rng.random() < INTERRUPTED:
            return 60.0 * min(25.0, rng.lognormvariate(1.2, 0.8))
        return rng.uniform(1.5, 15.0)

    def _choose(self) -> int:
        """Pick a question (position): one that was failed, or mostly of the concept at hand, harder as it goes."""
        rng = self._rng
        if self._failed and self._failed[-1] == self._last_question:
            if rng.random() < self._retries:
                return self._last_question
        elif self._failed and rng.random() < COMES_BACK:
            return rng.choice(self._failed)
        last = len(self._tries) - 1
        concept = self._detour if self._detour >= 0 else min(self._at, last)
        turn = rng.random()
        if turn < 0.25 or self._at > last:
            concept = max(0, min(self._at, last) - rng.randrange(1, RECENT_CONCEPTS))
        elif turn > 0.98:
            concept = min(last, self._at + rng.randrange(1, 4))
        questions = self._syllabus.questions_of[concept]
        rank = round(0.3 * self._tries[concept] + rng.gauss(3.0, 3.5))
        question = questions[min(len(questions) - 1, max(0, rank))]
        if question == self._last_question:
            question = questions[(questions.index(question) + 1) % len(questions)]
        return question

    def _note(self, question: int, correct: bool) -> None:
        self._last_question = question
        if question in self._failed:
            self._failed.remove(question)
        if not correct:
            self._failed = [*self._failed, question][-MOST_FAILED:]
        concept = self._syllabus.exercised[question][0]
        self._tries[concept] += 1
        self._streak[concept] = self._streak[concept] + 1 if correct else 0
        if concept not in (self._at, self._detour):
            return
        self._stuck[concept] += 1
        finished = self._streak[concept] >= FINISHED_STREAK
        if not finished and self._stuck[concept] < LONGEST_STAY:
            return
        if concept == self._at and (finished or self._stuck[concept] >= 4 * LONGEST_STAY):
            self._at += 1
        elif finished:
            self._detour = -1
        elif self._stuck[concept] % LONGEST_STAY == 0:
            self._detour = min(self._syllabus.hard[concept], key=self._streak.__getitem__, default=-1)
