"""What one learner's answers have left behind, as packed arrays. Holds the layout only; `update` changes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from engine.learner.days import DAYS, missed_days
from engine.types import NO_ROW

Records = npt.NDArray[Any]
"""A structured array of one of the layouts below."""

FILTERS = 2
"""Settings of the ability filter that run side by side."""
GLOBAL_WINDOWS = 4
CONCEPT_WINDOWS = 3
TIME_SCALES = 4
GLOBAL_VARIANCE: Final = (0.6, 1.0)
"""Of the two ability filters before the first answer, in squared log odds."""
RING = 40
"""Questions the state remembers by name: the least recently met one makes room."""
LAST_CONCEPTS = 4
MOST_SECONDS = 1e12
"""Later than any time that a state meets, in epoch seconds."""

HEADER = np.dtype(
    [
        ("first_at", "f8"),
        ("last_at", "f8"),
        ("practice_ms", "u8"),
        ("applied", "u4"),
        ("correct", "u4"),
        ("mean", "f4", (FILTERS,)),
        ("variance", "f4", (FILTERS,)),
        ("residual", "f4", (GLOBAL_WINDOWS,)),
        ("outcome", "f4", (GLOBAL_WINDOWS,)),
        ("hits", "f4", (TIME_SCALES,)),
        ("tries", "f4", (TIME_SCALES,)),
        ("session_at", "u4"),
        ("session_answers", "u4"),
        ("last_question", "u4"),
        ("last_concept", "u4", (LAST_CONCEPTS,)),
        ("last_day", "i4"),
        ("days_practised", "u4"),
        ("day_streak", "u2"),
        ("longest_streak", "u2"),
        ("day_answers", "u2", (DAYS,)),
        ("day_seconds", "u2", (DAYS,)),
        ("run", "i2"),
        ("pattern", "u1"),
        ("freezes", "u1"),
        ("freezes_spent", "u2"),
        ("spare", "u2"),
    ],
    align=True,
)
"""One record a learner: totals, the global ability filter, windows, session, streak and a ring of local days.

`mean`/`variance`: log odds of the ability filters. `residual`/`outcome`: decayed sums, weights `GLOBAL_DECAY`.
`hits`/`tries`: right and all answers decayed by time constants `TIME_SCALE_S`, as of `last_at`. `session_at`: start
of the session (epoch seconds). `freezes`: in hand; `freezes_spent`: used so far.
`run`: answers right (positive) or wrong (negative) in a row. `pattern`: the last up
to 7 outcomes as bits behind a leading 1, newest lowest. `day_*`: per local day, slot day % DAYS.
"""

CONCEPT = np.dtype(
    [
        ("row", "u4"),
        ("last_at", "u4"),
        ("review_at", "u4"),
        ("mastered_at", "u4"),
        ("last_step", "u4"),
        ("attempts", "u2"),
        ("correct", "u2"),
        ("mean", "f4", (FILTERS,)),
        ("variance", "f4", (FILTERS,)),
        ("residual", "f4", (CONCEPT_WINDOWS,)),
        ("outcome", "f4", (CONCEPT_WINDOWS,)),
        ("hits", "f4", (TIME_SCALES,)),
        ("tries", "f4", (TIME_SCALES,)),
        ("stability", "f4"),
        ("difficulty", "f4"),
        ("run", "i2"),
        ("implied", "u2"),
        ("lapses", "u1"),
        ("missed", "u1"),
        ("pattern", "u1"),
        ("mastered", "u1"),
    ],
    align=True,
)
"""One record a concept touched, sorted by `row`.

Times are whole epoch seconds: `last_at` own practice, `review_at` memory (implied practice moves it too), `mastered_at`
when mastery was last earned. `last_step`: the learner's answer number at the last own practice. `stability` in days,
0 when memory has not started; `difficulty` 1 to 10. `lapses`: wrong answers to a remembered concept, at most 255.
`missed`: how much was forgotten (1 - R, in 255ths, rounded up) when the last own answer was wrong; 0 when it was right.
`implied`: answers that exercised the concept only through one that encompasses it. The rest as in `HEADER`.
"""

RECENT = np.dtype(
    [
        ("question", "u4"),
        ("step", "u4"),
        ("at", "u4"),
        ("stability", "f4"),
        ("difficulty", "f4"),
        ("seen", "u1"),
        ("right", "u1"),
        ("last", "u1"),
        ("unused", "u1"),
    ],
    align=True,
)
"""One record a recently met question; `question` is NO_ROW where empty. Times seen and right stop at 255."""


def blank_header() -> Records:
    """Return the header (shape (1,)) of a learner who has answered nothing."""
    header = np.zeros(1, HEADER)
    header["variance"] = GLOBAL_VARIANCE
    header["pattern"] = 1
    header["last_question"] = NO_ROW
    header["last_concept"] = NO_ROW
    return header


def blank_recent() -> Records:
    """Return an empty ring of recent questions, shape (RING,)."""
    recent = np.zeros(RING, RECENT)
    recent["question"] = NO_ROW
    return recent


@dataclass(frozen=True, slots=True)
class LearnerState:
    """Everything derived from one learner's answers; treat the arrays as read-only."""

    HEADER: ClassVar[np.dtype[Any]] = HEADER
    CONCEPT: ClassVar[np.dtype[Any]] = CONCEPT
    RECENT: ClassVar[np.dtype[Any]] = RECENT

    header: Records
    """Shape (1,), dtype HEADER."""
    concepts: Records
    """Shape (k,), dtype CONCEPT, strictly increasing `row`."""
    recent: Records
    """Shape (RING,), dtype RECENT, in no order."""

    @classmethod
    def empty(cls) -> LearnerState:
        """Return the state before the first answer."""
        return cls(blank_header(), np.zeros(0, CONCEPT), blank_recent())

    @property
    def applied(self) -> int:
        """Number of answers this state has taken in."""
        return int(self.header[0]["applied"])

    @property
    def last_answered_at(self) -> float:
        """Epoch seconds of the newest answer; 0.0 before the first."""
        return float(self.header[0]["last_at"])

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays together."""
        return int(self.header.nbytes + self.concepts.nbytes + self.recent.nbytes)

    def streak_on(self, local_day: int, now: float = math.inf) -> tuple[int, int]:
        """Return (streak in days, freezes left) as they stand on `local_day`, settled without writing.

        The streak lives while the days missed since the last practice day can be covered by freezes; today itself is
        not missed yet. `now` (epoch seconds) keeps a date that a traveller skipped from counting as missed, see
        `days.missed_days`; without it the calendar alone counts.
        """
        header = self.header[0]
        streak, freezes = int(header["day_streak"]), int(header["freezes"])
        elapsed = min(now, MOST_SECONDS) - float(header["last_at"])
        missed = missed_days(int(header["last_day"]), local_day, elapsed)
        return (0, freezes) if streak == 0 or missed > freezes else (streak, freezes - missed)

    def day_totals(
        self, local_day: int, days: int = DAYS
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (answers, practice seconds), each (days,), of the `days` local days that end with `local_day`.

        Days outside the ring count 0.

        Raises:
            ValueError: `days` is not in 1..DAYS.
        """
        if not 1 <= days <= DAYS:
            raise ValueError(f"days must be 1 to {DAYS}, not {days}")
        header = self.header[0]
        last = int(header["last_day"])
        if not (int(header["applied"]) and last - DAYS < local_day < last + days):
            return np.zeros(days, np.int64), np.zeros(days, np.int64)
        if days == 1:
            slot = slice(local_day % DAYS, local_day % DAYS + 1)
            return header["day_answers"][slot].astype(np.int64), header["day_seconds"][slot].astype(np.int64)
        wanted = np.arange(local_day - days + 1, local_day + 1)
        held = (wanted <= last) & (wanted > last - DAYS)
        answers = np.where(held, header["day_answers"][wanted % DAYS], 0).astype(np.int64)
        seconds = np.where(held, header["day_seconds"][wanted % DAYS], 0).astype(np.int64)
        return answers, seconds
