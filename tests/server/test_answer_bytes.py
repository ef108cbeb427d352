"""Results as bytes are byte for byte what the generated classes give; a quick look finds what a close one does."""

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner.state import CONCEPT
from engine.types import LearnerProfile
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2
from server import convert
from server.learner_views import held_time
from server.local_days import local_days
from server.services import answer_columns
from server.services.answer_bytes import Texts, Told, message_field, result_fields
from server.services.answer_columns import sort_answers
from server.services.answer_results import messages_of, plain_fields
from server.validate import Violations
from store.answers import RecordedAnswers
from store.answers_bulk import RecordedMany, record_many
from store.api import Partition, Store
from store.learners import Outcome, create_profile
from tests.server.learner_world import DAY, World
from tests.server.service_calls import NOW

NAMES = ["count", "", "x" * 128, "añadir" * 20]
EVENTS = {0: 0, 1: resources_pb2.MASTERY_EVENT_MASTERED, -1: resources_pb2.MASTERY_EVENT_LOST}

chances = st.one_of(st.just(0.0), st.floats(0.0, 1.0, width=32))
micros = st.one_of(st.just(0), st.integers(0, 4 * 10**15), st.integers(0, 2 * 10**6))
change = st.tuples(
    st.integers(0, len(NAMES) + 2),
    chances,
    chances,
    chances,
    chances,
    st.sampled_from([-1, 0, 1]),
    st.integers(0, 2**32 - 1),
    st.just(0.0) | st.floats(2.0**-10, 2.0**30, width=32),
)
result = st.tuples(
    st.text(min_size=1, max_size=128),
    micros,
    chances,
    st.lists(change, max_size=9),
    st.integers(0, 2),
    st.booleans(),
)
STREAKS = [resources_pb2.Streak(), resources_pb2.Streak(current_days=3, longest_days=500), None]
INTERVAL = 1.7
GAPS = pb.AnswerResult(late=True).SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.lists(result, min_size=1, max_size=6))
def test_any_results(drawn: list[tuple[str, int, float, list[tuple[float, ...]], int, bool]]) -> None:
    drawn.sort(key=lambda one: one[4])
    changes = [one for _, _, _, own, _, _ in drawn for one in own]
    given_at = np.array([at for _, at, *_ in drawn]) / 1e6
    concepts = np.zeros(len(changes) + 1, CONCEPT)
    for record, one in zip(concepts[1:], changes, strict=True):
        record["review_at"], record["stability"] = one[6:]
    before, after, deviation, weight = (
        np.array([one[column] for one in changes], np.float32) for column in range(1, 5)
    )
    told = Told(
        answer_id=Texts.of([name.encode() for name, *_ in drawn]),
        names=Texts.of([name.encode() for name in NAMES]),
        streaks=Texts.of([pb.AnswerResult(streak=streak).SerializeToString() for streak in STREAKS]),
        extras=Texts.of([GAPS if more else b"" for *_, more in drawn]),
        bounds=np.searchsorted([owner for *_, owner, _ in drawn], np.arange(len(STREAKS) + 1)),
        answered_at=given_at,
        predicted=np.array([chance for _, _, chance, *_ in drawn], np.float32),
        offsets=np.cumsum([0, *(len(own) for _, _, _, own, _, _ in drawn)]).astype(np.int32),
        concept=np.array([one[0] for one in changes], np.uint32),
        before=before,
        after=after,
        deviation=deviation,
        weight=weight,
        crossed=np.array([one[5] for one in changes], np.int8),
        concepts=concepts,
        place=np.arange(1, len(changes) + 1),
        interval=INTERVAL,
    )
    for (name, at, chance, own, owner, more), field in zip(drawn, result_fields(told), strict=True):
        message = pb.AnswerResult(
            answer_id=name,
            status=pb.ANSWER_STATUS_RECORDED,
            answered_at=convert.timestamp(at / 1e6),
            predicted_success=chance,
            streak=STREAKS[owner],
            late=more,
        )
        for row, had, has, within, share, crossed, review_at, stability in own:
            told_of = message.mastery_changes.add(
                concept_id=NAMES[int(row)] if row < len(NAMES) else "",
                mastery_before=had,
                mastery_after=has,
                mastery_sd_after=within,
                weight=share,
                event=EVENTS[int(crossed)],
            )
            if stability:
                told_of.next_review_time.CopyFrom(held_time(review_at + stability * INTERVAL * DAY))
        assert field == message_field(message)


def answer(place: int, learner: str, question: str, at: float, *, correct: bool = True) -> pb.Answer:
    return pb.Answer(
        answer_id=f"{learner}-{place}",
        learner_id=learner,
        question_id=question,
        correct=correct,
        answered_at=convert.timestamp(at),
        duration=Duration(seconds=place % 50, nanos=500_000_000),
        hints_used=place % 3,
        device=place % 3,  # type: ignore[arg-type]
    )


def recorded_by(world: World, store: Store, answers: list[pb.Answer]) -> RecordedMany:
    bundle = world.tenants.bundle("default")
    found = sort_answers(bundle, answers, NOW, lambda place: Violations())
    assert not found.refused
    partitions = [Partition("default", name) for name in found.many.learners]
    model = bundle.learner_model
    return store.submit_bulk(
        partitions, lambda bulk: record_many(bulk, found.many, model, local_days)
    ).result()


def test_results_of_learners_in_bulk_are_those_of_each_alone() -> None:
    """Over days with milestones, gaps, mastery earned and lost, a streak that ended, and two calendars."""
    world = World()
    bundle = world.tenants.bundle("default")
    profile = LearnerProfile("bob", time_zone="Pacific/Auckland", created_at=NOW)
    world.store.update(Partition("default", "bob"), lambda tx: create_profile(tx, profile))
    told: set[str] = set()
    events: set[int] = set()
    for day in (40, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        call = []
        for place in range(12):
            at = NOW - day * DAY + place * 60.0 - 3600.0
            call.append(answer(100 * day + place, "ann", f"add-{place % 10}", at, correct=day % 3 > 0))
            if place < 6:
                call.append(answer(100 * day + place, "bob", f"count-{place}", at, correct=place > 3))
            if day > 5:
                call.append(answer(100 * day + place, "cleo", f"multiply-{place % 10}", at))
        recorded = recorded_by(world, world.store, call)
        assert not recorded.alone
        fields = plain_fields(bundle, recorded, NOW)
        for i, number in enumerate(recorded.numbers):
            own = slice(int(recorded.bounds[i]), int(recorded.bounds[i + 1]))
            log = recorded.log.take(np.arange(own.start, own.stop))
            outcome = np.full(log.size, Outcome.RECORDED, np.uint8)
            alone = RecordedAnswers(outcome, log, recorded.crowd.state(i))
            zone = recorded.time_zones[number]
            messages = list(messages_of(bundle, log.answer_id, alone, zone, NOW))
            assert fields[own] == [message_field(message) for message in messages]
            told |= {name.name for message in messages for name, _ in message.ListFields()}
            events |= {change.event for message in messages for change in message.mastery_changes}
    assert {"milestones", "learning_gaps"} <= told
    assert events == set(EVENTS.values())


def test_a_quick_look_at_all_answers_finds_what_a_close_one_at_each_does() -> None:
    world = World()
    bundle = world.tenants.bundle("default")
    answers = [answer(i, f"learner-{i % 7}", f"add-{i % 10}", NOW - i) for i in range(40)]
    for i, one in enumerate(answers):
        if i % 5 == 0:
            one.ClearField("duration")
        if i % 4 == 0:
            one.ClearField("answered_at")
    quick = answer_columns._quickly(bundle, answers, NOW)
    close = answer_columns._one_by_one(bundle, answers, range(40), NOW, lambda place: Violations())
    assert quick == close[2]
    assert (close[0], close[1], close[3]) == (answers, list(range(40)), {})


def test_a_quick_look_leaves_what_is_odd_to_a_close_one() -> None:
    world = World()
    bundle = world.tenants.bundle("default")
    odd: list[dict[str, object]] = [
        {"answer_id": ""},
        {"answer_id": "x" * 129},
        {"answer_id": "é"},
        {"learner_id": "a\nb"},
        {"learner_id": ""},
        {"session_id": "x" * 129},
        {"recommendation_id": "\x00"},
        {"question_id": "unknown"},
        {"hints_used": 256},
        {"hints_used": -1},
        {"device": 99},
        {"duration": Duration(seconds=86_401)},
        {"duration": Duration(seconds=-1)},
        {"duration": Duration(nanos=-1)},
        {"answered_at": Timestamp(seconds=-1)},
        {"answered_at": Timestamp(seconds=int(NOW), nanos=-1)},
        {"answered_at": Timestamp(seconds=int(NOW) + 86_402)},
    ]
    fine = [answer(i, "ann", "add-1", NOW) for i in range(3)]
    assert answer_columns._quickly(bundle, fine, NOW) is not None
    for fields in odd:
        one = answer(9, "ann", "add-1", NOW)
        for name, value in fields.items():
            if isinstance(value, (Duration, Timestamp)):
                getattr(one, name).CopyFrom(value)
            else:
                setattr(one, name, value)
        assert answer_columns._quickly(bundle, [*fine, one], NOW) is None, fields
    unsaid = answer(9, "ann", "add-1", NOW)
    unsaid.ClearField("correct")
    assert answer_columns._quickly(bundle, [*fine, unsaid], NOW) is None
