"""GetLearnerProgress: days and areas from a learner's whole log. Costs time and memory in proportion to its answers."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.history import area_history, day_history
from engine.learner import ConceptView
from genie.v1 import progress_pb2
from server import convert
from store.answer_log import AnswerLog

Flags = npt.NDArray[np.bool_]


def area_rows(catalog: Catalog, area: str) -> Flags:
    """(nc,) which concepts are of the area; all there are when it is empty."""
    chosen: Flags = catalog.concept_active == 1
    if area:
        chosen &= catalog.area_code == (catalog.areas.index(area) if area in catalog.areas else -1)
    return chosen


def day_messages(
    log: AnswerLog, catalog: Catalog, area: str, *, first_day: int
) -> list[progress_pb2.DayProgress]:
    """Days from `first_day` on with answers in the area; `log` in the order in which it is applied."""
    chosen_answers, chosen_pairs = _chosen(log, catalog, area)
    days = day_history(log.batch, log.crossed, chosen=chosen_answers, pair_chosen=chosen_pairs)
    return [
        progress_pb2.DayProgress(
            date=convert.calendar_date(int(days.day[i])),
            answers_count=int(days.answers[i]),
            correct_count=int(days.correct[i]),
            practice_duration=convert.duration(float(days.seconds[i])),
            mastered_concepts_count=int(days.mastered[i]),
            lost_concepts_count=int(days.lost[i]),
        )
        for i in np.flatnonzero(days.day >= first_day)
    ]


def area_messages(
    log: AnswerLog, catalog: Catalog, view: ConceptView, area: str, *, first_day: int
) -> list[progress_pb2.AreaProgress]:
    """Areas by name, as the learner stands now and stood at the end of each day from `first_day` on."""
    rows = area_rows(catalog, area)
    history = area_history(log.batch, catalog.area_code, rows)
    messages = []
    for code in sorted(set(catalog.area_code[rows].tolist()), key=lambda code: catalog.areas[code]):
        of_area = np.flatnonzero(rows & (catalog.area_code == code))
        points = np.flatnonzero((history.area == code) & (history.day >= first_day))
        messages.append(
            progress_pb2.AreaProgress(
                area=catalog.areas[code],
                concepts_count=len(of_area),
                touched_concepts_count=int((view.attempts[of_area] > 0).sum()),
                mastered_concepts_count=int(view.mastered[of_area].sum()),
                mean_mastery=float(view.mastery[of_area].mean()),
                points=[
                    progress_pb2.MasteryPoint(
                        date=convert.calendar_date(int(history.day[i])),
                        mean_mastery=float(history.mean_mastery[i]),
                        touched_concepts_count=int(history.touched[i]),
                    )
                    for i in points
                ],
            )
        )
    return messages


def _chosen(log: AnswerLog, catalog: Catalog, area: str) -> tuple[Flags, Flags]:
    """((n,) answers of the area, (m,) pairs of the area): an answer belongs to the areas of its question's concepts."""
    facts = log.batch
    if not area:
        return np.ones(log.size, np.bool_), np.ones(len(facts.concept), np.bool_)
    rows = area_rows(catalog, area)
    known = facts.concept < rows.shape[0]
    pairs = np.zeros(len(facts.concept), np.bool_)
    pairs[known] = rows[facts.concept[known]]
    own = pairs & (facts.weight >= 1.0)
    answers = np.array([own[start:end].any() for start, end in pairwise(facts.offsets.tolist())], np.bool_)
    return answers, pairs
