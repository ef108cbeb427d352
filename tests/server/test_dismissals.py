"""Dismissed questions, whatever the order in which their events arrive. No server and no store."""

from hypothesis import example, given
from hypothesis import strategies as st

from genie.v1 import recommendation_service_pb2 as pb
from server.services.feedback import dismissed_rows, learned
from store.records import FeedbackEvent
from store.tastes import MOST_DISMISSED, Taste
from tests.server.service_calls import NOW

DAY = 86_400.0


def dismissals(*events: tuple[int, float]) -> list[tuple[int, float]]:
    """What is remembered after dismissals of (row, time), in this order of arrival."""
    taste = Taste()
    for number, (row, at) in enumerate(events):
        kind = pb.FEEDBACK_KIND_DISMISSED
        event = FeedbackEvent(f"e-{number}", "r-1", f"q-{row}", kind, at, question_row=row)
        taste = learned(taste, event)
    return taste.dismissed


def test_a_late_dismissal_undoes_no_newer_one() -> None:
    assert dismissals((7, NOW), (7, NOW - 5 * DAY)) == [(7, NOW)]
    assert dismissed_rows(Taste(dismissed=dismissals((7, NOW), (7, NOW - 5 * DAY))), NOW + DAY).tolist() == [
        7
    ]


def test_the_oldest_dismissal_makes_room_not_the_one_that_came_first() -> None:
    newest = [(row, NOW - row) for row in range(MOST_DISMISSED)]
    late = [(1_000 + row, NOW - DAY - row) for row in range(MOST_DISMISSED)]
    assert dismissals(*newest, *late) == sorted(newest, key=lambda entry: entry[1])


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), min_size=1, max_size=160).flatmap(
        lambda events: st.tuples(st.just(events), st.permutations(events))
    )
)
@example(([(row, 0) for row in range(80)], [(row, 0) for row in reversed(range(80))]))
def test_the_order_of_arrival_does_not_matter(
    orders: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    first, second = ([(row, NOW + hour * 3_600.0) for row, hour in order] for order in orders)
    assert dismissals(*first) == dismissals(*second)
