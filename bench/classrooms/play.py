"""Plays learners of a world under a teacher: a course of fixed length, or a week of free will. Judges nothing."""

from dataclasses import dataclass
from typing import Protocol

from bench.worlds.world import DAY_S, Learner, SeesGains, Wilful, World

BETWEEN_ANSWERS_S = 4.0
"""From an answer to the next question."""
MOST_A_SESSION = 80
"""Answers after which even the most willing stop."""


class Pupil(Protocol):
    """One learner as a teacher sees them: what was asked and what came of it."""

    def choose(self, at: float) -> int:
        """Return the next question (place in the world's list) at `at`; −1 when there is none."""

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Take in an answer given at `at`."""


class Teacher(Protocol):
    """A way of choosing questions."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def pupil(self, number: int, learner: Learner) -> Pupil:
        """Return learner `number` before the first question; only an oracle may look into `learner`."""


@dataclass(frozen=True, slots=True)
class Course:
    """How long learners are taught, and when they are examined."""

    begins_at: float
    """Epoch seconds of the first question; each later day begins at the same hour."""
    days: int = 20
    answers_a_day: int = 20
    exam_after_days: float = 4.0
    """From the beginning of the last day to the exam."""

    @property
    def exam_at(self) -> float:
        """Epoch seconds of the exam."""
        return self.begins_at + DAY_S * (self.days - 1 + self.exam_after_days)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one learner."""

    before: float
    """Share of the exam at the beginning."""
    after: float
    """Share of the exam at its time."""
    answers: int
    correct: int
    minutes: float
    """Spent on answers."""
    days: int
    """Days on which at least one answer was given."""
    last_day: int
    """The last of them, from 0; −1 when there is none."""

    @property
    def gain(self) -> float:
        """By how much the exam rose."""
        return self.after - self.before


@dataclass(slots=True)
class _Tally:
    answers: int = 0
    correct: int = 0
    seconds: float = 0.0
    days: int = 0
    last_day: int = -1

    def outcome(self, before: float, after: float) -> Outcome:
        return Outcome(
            before, after, self.answers, self.correct, self.seconds / 60.0, self.days, self.last_day
        )


def play_course(world: World, teacher: Teacher, number: int, course: Course) -> Outcome:
    """Teach learner `number` for the whole course: everybody comes and stays, as in a lesson."""
    learner = world.learner(number, course.begins_at)
    pupil = teacher.pupil(number, learner)
    before = world.exam(learner, course.begins_at)
    tally = _Tally()
    for day in range(course.days):
        at = course.begins_at + DAY_S * day
        for _ in range(course.answers_a_day):
            at = _ask(world, learner, pupil, at, day, tally)
    return tally.outcome(before, world.exam(learner, course.exam_at))


def play_week(world: World, teacher: Teacher, number: int, course: Course, days: int = 7) -> Outcome:
    """Let learner `number` practise at will for `days` days; the exam is at the same hour a day later."""
    learner = world.learner(number, course.begins_at)
    pupil = teacher.pupil(number, learner)
    before = world.exam(learner, course.begins_at)
    tally = _Tally()
    for day in range(days):
        if isinstance(world, Wilful) and not world.comes(learner, day):
            continue
        at = course.begins_at + DAY_S * day
        for _ in range(MOST_A_SESSION):
            at = _ask(world, learner, pupil, at, day, tally)
            if isinstance(world, Wilful) and not world.stays(learner):
                break
    return tally.outcome(before, world.exam(learner, course.begins_at + DAY_S * days))


def _ask(world: World, learner: Learner, pupil: Pupil, at: float, day: int, tally: _Tally) -> float:
    """Ask one question and return the time of the next; a teacher without a question lets half a minute pass."""
    question = pupil.choose(at)
    if question < 0:
        return at + 30.0
    said, taken = world.answer(learner, question, at)
    # Somebody else's world may speak numpy.
    correct, seconds = bool(said), float(taken)
    # An answer is given when it is finished, not when it was asked.
    done = at + seconds
    pupil.note(question, correct, seconds, done)
    tally.answers += 1
    tally.correct += correct
    tally.seconds += seconds
    if tally.last_day != day:
        tally.days += 1
        tally.last_day = day
    return done + BETWEEN_ANSWERS_S


@dataclass(frozen=True, slots=True)
class Oracle:
    """Sees the true state and asks what is expected to raise the exam most, one step ahead."""

    world: SeesGains
    exam_at: float
    name: str = "oracle"

    def pupil(self, number: int, learner: Learner) -> "_Seen":
        """Return the learner, seen through."""
        return _Seen(self.world, learner, self.exam_at)


@dataclass(slots=True)
class _Seen:
    world: SeesGains
    learner: Learner
    exam_at: float

    def choose(self, at: float) -> int:
        return int(self.world.gains(self.learner, at, self.exam_at).argmax())

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Nothing to note: the state itself is seen."""
