"""Answers to questions that the catalogue no longer holds: those that were recorded while it did. Records nothing."""

from collections.abc import Sequence

import numpy as np

from engine.types import NO_ROW
from genie.v1 import practice_service_pb2 as pb
from server import errors
from server.local_days import DEFAULT_TIME_ZONE
from server.rpc import Call
from server.services.answer_results import messages_of
from server.tenants import Bundle
from store.answer_log import AnswerLog
from store.answers import RecordedAnswers, same_answers
from store.api import Partition, Store
from store.catalogs import question_names
from store.learners import Outcome, answers_at, find_answers, read_profile, read_state


def repeated_answers(
    store: Store,
    bundle: Bundle,
    answers: Sequence[pb.Answer],
    refused: dict[int, errors.GenieError],
    call: Call,
) -> dict[int, pb.AnswerResult]:
    """By place the results of refused answers whose ids the logs hold: an answer outlives its question.

    Only those are looked at whose one fault is that their question is unknown.
    """
    by_learner: dict[str, list[int]] = {}
    for place, error in refused.items():
        if isinstance(error, errors.QuestionNotFound):
            by_learner.setdefault(answers[place].learner_id, []).append(place)
    results: dict[int, pb.AnswerResult] = {}
    for learner_id, places in by_learner.items():
        with store.read(Partition(call.tenant, learner_id)) as reader:
            known = find_answers(reader, [answers[place].answer_id for place in places])
            places = [place for place in places if answers[place].answer_id in known]
            if not places:
                continue
            held = answers_at(reader, [known[answers[place].answer_id] for place in places])
            state = read_state(reader, bundle.learner_model.memory_sets)
            profile = read_profile(reader)
        with store.read(Partition(call.tenant)) as reader:
            names = question_names(reader, set(held.batch.question.tolist()))
        sent = _as_sent([answers[place] for place in places], held, names)
        outcome = np.where(same_answers(sent, held), Outcome.DUPLICATE, Outcome.REUSED).astype(np.uint8)
        told = messages_of(
            bundle,
            sent.answer_id,
            RecordedAnswers(outcome, held, state),
            DEFAULT_TIME_ZONE if profile is None else profile.time_zone,
            call.now,
        )
        results.update(zip(places, told, strict=True))
    return results


def _as_sent(answers: Sequence[pb.Answer], held: AnswerLog, names: dict[int, str]) -> AnswerLog:
    """What was recorded, with what is said of it now; `names` are the ids of the questions recorded, by row."""
    rows = held.batch.question.tolist()
    question = [
        row if names.get(row) == answer.question_id else NO_ROW
        for row, answer in zip(rows, answers, strict=True)
    ]
    seconds = np.array([answer.duration.seconds + answer.duration.nanos * 1e-9 for answer in answers])
    batch = held.batch._replace(
        question=np.array(question, np.uint32),
        correct=np.array([answer.correct for answer in answers], np.uint8),
        answered_at=np.array(
            [answer.answered_at.seconds + answer.answered_at.nanos * 1e-9 for answer in answers]
        ),
        duration_ms=np.rint(seconds * 1e3).astype(np.uint32),
        hints=np.array([answer.hints_used for answer in answers], np.uint8),
    )
    return held._replace(
        batch=batch,
        timed=np.array([answer.HasField("answered_at") for answer in answers], np.uint8),
        device=np.array([answer.device for answer in answers], np.uint8),
        answer_id=[answer.answer_id for answer in answers],
        session_id=[answer.session_id for answer in answers],
        recommendation_id=[answer.recommendation_id for answer in answers],
    )
