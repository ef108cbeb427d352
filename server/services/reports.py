"""A day's or a week's report on a learner and on all learners, at one moment. Reads the store, changes nothing."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from engine import habits
from engine.agenda import AgendaDay
from engine.forecast import WINDOW_DAYS
from engine.gaps import Gap, find_gaps
from engine.habits import Risk
from engine.history import DayHistory
from engine.learner import ConceptView, LearnerState
from engine.reports import Answers, LearnerPeriod, Standing, TenantTally, learner_period
from engine.streaks import StreakLengths
from engine.types import LearnerProfile
from server.learner_views import touched_rows, view_of
from server.local_days import local_day
from server.services.learning_profile import MOST_GAPS
from server.services.plans import plan
from server.services.progress import streaks_of, whole_history
from server.tenants import Bundle
from store.answer_log import AnswerLog, chronological, empty_log
from store.api import Partition, Reader, Store, Table
from store.learners import first_answer_day, read_answers, read_arrived_since, read_profile, read_state
from store.replay import all_learners

DAY_SPAN: Final = 1
WEEK_SPAN: Final = 7
MOST_AT_RISK: Final = 100

_DAY_SECONDS: Final = 86_400.0
_EARLIEST_SECONDS: Final = (14.0 + 24.0) * 3_600.0
"""An answer of a day may have been given 14 hours before that day begins in UTC, and have arrived a day before it was
given: clocks may be a day ahead."""


class Period(NamedTuple):
    """The days of a report."""

    first: int
    last: int

    @classmethod
    def ending(cls, last: int, span: int) -> "Period":
        """The `span` days that end with day `last`."""
        return cls(last - span + 1, last)

    @classmethod
    def over(cls, now: float, time_zone: str, span: int) -> "Period":
        """The last `span` days that are over in a time zone."""
        return cls.ending(local_day(now, time_zone) - 1, span)


@dataclass(frozen=True, slots=True)
class LearnerFacts:
    """What a report on a learner is made of."""

    profile: LearnerProfile
    state: LearnerState
    view: ConceptView
    today: int
    first_day: int | None
    """Day of the first answer; None before it."""
    history: DayHistory
    """Complete for the report's days, as many before, and the last `WINDOW_DAYS`."""
    period: LearnerPeriod
    gaps: list[Gap]
    risks: list[Risk]
    path_days: range
    path: list[AgendaDay]

    @property
    def lapsed(self) -> bool:
        """Whether the learner has been away too long to be at risk."""
        away = habits.days_away(self.state, self.today)
        return away is not None and away > habits.LAPSED_DAYS


def learner_facts(
    reader: Reader, profile: LearnerProfile, bundle: Bundle, now: float, period: Period
) -> LearnerFacts:
    """Read and work out what a report says of a learner; `reader` is open on their partition."""
    state = read_state(reader, bundle.learner_model.memory_sets)
    today = local_day(now, profile.time_zone)
    log = _recent(reader, state, min(2 * period.first - period.last - 1, today + 1 - WINDOW_DAYS))
    history = whole_history(log)
    answers = Answers(log.batch, log.crossed, *_streaks(reader, log))
    view = view_of(state, bundle.catalog, bundle.learner_model, now)
    days, path = plan(profile, state, view, bundle, now)
    return LearnerFacts(
        profile=profile,
        state=state,
        view=view,
        today=today,
        first_day=first_answer_day(reader, state),
        history=history,
        period=learner_period(answers, history, state, *period),
        gaps=find_gaps(state, view, bundle.catalog, most=MOST_GAPS),
        risks=habits.risks(state, today, now),
        path_days=days,
        path=path,
    )


def every_learner(
    store: Store,
    tenant: str,
    bundle: Bundle,
    now: float,
    period: Period,
    labels: Set[tuple[str, str]] = frozenset(),
) -> Iterator[LearnerFacts]:
    """The facts of each learner with all of the labels, in order of ids, from a short read each; one at a time."""
    for learner_id in all_learners(store, tenant, Table.PROFILE):
        facts = None
        with store.read(Partition(tenant, learner_id)) as reader:
            profile = read_profile(reader)
            if profile is not None and labels <= profile.labels.items():
                facts = learner_facts(reader, profile, bundle, now, period)
        if facts is not None:
            yield facts


@dataclass(slots=True)
class TenantSums:
    """What a report on all learners is made of."""

    tally: TenantTally
    at_risk: list[LearnerFacts] = field(default_factory=list)
    """The first `MOST_AT_RISK`."""

    @classmethod
    def empty(cls, bundle: Bundle, period: Period) -> "TenantSums":
        """Nobody yet."""
        return cls(TenantTally(*period, concepts=bundle.catalog.concept_count))

    def add(self, facts: LearnerFacts, bundle: Bundle) -> None:
        """Count a learner."""
        rows = touched_rows(facts.state, bundle.catalog)
        standing = Standing(
            mastered=int(facts.view.mastered[rows].sum()),
            risks=facts.risks,
            lapsed=facts.lapsed,
            gaps=facts.gaps,
            path=facts.path,
        )
        self.tally.add(facts.period, standing, facts.first_day)
        if facts.risks and len(self.at_risk) < MOST_AT_RISK:
            self.at_risk.append(facts)


def _recent(reader: Reader, state: LearnerState, first: int) -> AnswerLog:
    """The log in order of its times, complete from day `first` on."""
    if not state.applied or int(state.header["last_day"][0]) < first:
        return empty_log()
    log = read_arrived_since(reader, first * _DAY_SECONDS - _EARLIEST_SECONDS)
    return log.take(chronological(log)) if np.any(np.diff(log.batch.answered_at) < 0.0) else log


def _streaks(reader: Reader, log: AnswerLog) -> StreakLengths:
    """What each answer of a recent log did to the streak.

    A late answer makes out of date what was told with answers before its arrival, and those are in the log with it:
    without one all stands; with one the whole log is read.
    """
    if not log.late.any():
        return streaks_of(log)
    whole = read_answers(reader)
    whole = whole.take(chronological(whole))
    recent = whole.sequence >= log.sequence.min()
    return StreakLengths._make(column[recent] for column in streaks_of(whole))
