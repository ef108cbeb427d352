"""What is stored of one learner: profile, state, answer log, sessions, feedback. Decides nothing about them.

Keys inside the learner's partition: ANSWER by order of arrival (u64 big-endian), ANSWER_ID by digest of the
id, SESSION by start (microseconds, u64 big-endian) and digest of the id, SESSION_ID by that digest, FEEDBACK
by digest of the event id.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import islice

import numpy as np

from engine.learner import LearnerState, replay
from engine.types import F8, LearnerProfile
from store import codec
from store.answer_log import AnswerLog, chronological, decode_answers, given_on
from store.answer_log import received_at as arrival
from store.api import IdempotencyKeyReused, Partition, Reader, Store, StoreCorrupt, Table, Transaction
from store.records import FeedbackEvent, Session
from store.tallies import Tally, feedback_cell, tally, utc_day

SEQUENCE_BYTES = 8
CLOCK_SLACK_SECONDS = 3_600.0
"""How far a server's clock may have been set back between two answers."""
_LOOK_EVERY = 16
LOOK_BACK_ANSWERS = 1_000
"""Answers of a session that came before it was opened are found behind fewer than so many in a row of others."""


class Outcome(IntEnum):
    """What became of something that carries its own id."""

    RECORDED = 1
    DUPLICATE = 2
    """It had been recorded before; nothing changed."""
    REUSED = 3
    """The id was used before for something else; nothing changed."""


def sequence_key(sequence: int) -> bytes:
    """Key of an answer by its order of arrival."""
    return sequence.to_bytes(SEQUENCE_BYTES, "big")


def read_profile(reader: Reader) -> LearnerProfile | None:
    """The profile; None for a learner nobody has created."""
    value = reader.get(Table.PROFILE)
    return None if value is None else codec.PROFILE.decode(value)


def write_profile(tx: Transaction, profile: LearnerProfile) -> None:
    """Overwrite the profile."""
    tx.put(Table.PROFILE, b"", codec.PROFILE.encode(profile))


def create_profile(tx: Transaction, profile: LearnerProfile) -> None:
    """Take in a learner of whom there was no profile."""
    write_profile(tx, profile)
    tally(tx, utc_day(profile.created_at), Tally.CREATED)


def read_state(reader: Reader, memory_sets: F8) -> LearnerState:
    """The learner's state. One of an older layout, or none, is worked out from the log."""
    value = reader.get(Table.STATE)
    if value is not None:
        try:
            return codec.decode_state(value)
        except codec.StateOutdated:
            pass
    return rebuild_state(reader, memory_sets)


def rebuild_state(reader: Reader, memory_sets: F8) -> LearnerState:
    """The state that the learner's whole log leads to; `memory_sets` has shape (sets, 21)."""
    log = read_answers(reader)
    if not log.size:
        return LearnerState.empty()
    return replay(log.take(chronological(log)).batch, memory_sets)


def write_state(tx: Transaction, state: LearnerState) -> None:
    """Insert or overwrite the state."""
    tx.put(Table.STATE, b"", codec.encode_state(state))


def last_sequence(reader: Reader) -> int:
    """Sequence of the newest arrival in the log; 0 when it is empty."""
    for key, _ in reader.scan(Table.ANSWER, reverse=True):
        return int.from_bytes(key, "big")
    return 0


def first_answer_day(reader: Reader, state: LearnerState) -> int | None:
    """The local day, as logged, of the answer that was given first; None before it. `state` is the reader's.

    It is mostly the first that arrived; what arrived before it is looked at but not decoded.
    """
    if not state.applied:
        return None
    first_at = float(state.header["first_at"][0])
    for _, value in reader.scan(Table.ANSWER):
        at, day = given_on(value)
        if at == first_at:
            return day
    raise StoreCorrupt("the state does not go with its answer log; a replay that writes repairs it")


def read_answers(
    reader: Reader, *, first: int = 1, limit: int | None = None, newest_first: bool = False
) -> AnswerLog:
    """Log entries from sequence `first` on, at most `limit`, in order of arrival or its reverse."""
    entries = list(islice(reader.scan(Table.ANSWER, start=sequence_key(first), reverse=newest_first), limit))
    return decode_answers([int.from_bytes(key, "big") for key, _ in entries], [value for _, value in entries])


def read_arrived_since(reader: Reader, received_at: float) -> AnswerLog:
    """Every entry that arrived since `received_at` (epoch seconds) and perhaps some before, in order of arrival.

    Clocks set back by less than `CLOCK_SLACK_SECONDS` hide nothing.
    """
    entries: list[tuple[int, bytes]] = []
    for key, value in reader.scan(Table.ANSWER, reverse=True):
        # To look at each would cost more than to decode a few too many.
        if len(entries) % _LOOK_EVERY == 0 and arrival(value) < received_at - CLOCK_SLACK_SECONDS:
            break
        entries.append((int.from_bytes(key, "big"), value))
    entries.reverse()
    return decode_answers([sequence for sequence, _ in entries], [value for _, value in entries])


def first_of_session(reader: Reader, session_id: str) -> int:
    """Sequence from which on all answers with the session's id are found: of the first, or else of the next to come.

    Looks back until `LOOK_BACK_ANSWERS` in a row are not the session's.
    """
    name, first, newest = session_id.encode(), 0, 0
    for key, value in reader.scan(Table.ANSWER, reverse=True):
        sequence = int.from_bytes(key, "big")
        newest = newest or sequence
        if (first or newest + 1) - sequence > LOOK_BACK_ANSWERS:
            break
        # Few entries need be decoded: the id stands in them as it is.
        if name in value and decode_answers([sequence], [value]).session_id[0] == session_id:
            first = sequence
    return first or newest + 1


def find_answers(
    reader: Reader, answer_ids: Sequence[str], digests: Sequence[bytes] | None = None
) -> dict[str, int]:
    """Sequence of each of the answers that the log holds. `digests` are those of the ids, where they are at hand."""
    found = {}
    keys = digests if digests is not None else [codec.digest(answer_id) for answer_id in answer_ids]
    for answer_id, key in zip(answer_ids, keys, strict=True):
        value = reader.get(Table.ANSWER_ID, key)
        if value is not None:
            found[answer_id] = int.from_bytes(value, "big")
    return found


def answers_at(reader: Reader, sequences: Sequence[int]) -> AnswerLog:
    """The log entries of these sequences, in their order. Raises StoreCorrupt when one is missing."""
    values = []
    for sequence in sequences:
        value = reader.get(Table.ANSWER, sequence_key(sequence))
        if value is None:
            raise StoreCorrupt(f"answer {sequence} is indexed but not in the log")
        values.append(value)
    return decode_answers(sequences, values)


def append_answers(
    tx: Transaction, sequences: Sequence[int], values: Sequence[bytes], digests: Sequence[bytes]
) -> None:
    """Put encoded entries into the log, and the digests of their ids into its index."""
    keys = [sequence_key(sequence) for sequence in sequences]
    tx.put_many(Table.ANSWER, list(zip(keys, values, strict=True)))
    tx.put_many(Table.ANSWER_ID, list(zip(digests, keys, strict=True)))


def read_session(reader: Reader, session_id: str) -> Session | None:
    """A session by its id."""
    key = reader.get(Table.SESSION_ID, codec.digest(session_id))
    value = None if key is None else reader.get(Table.SESSION, key)
    return None if value is None else codec.SESSION.decode(value)


def start_session(tx: Transaction, session: Session, *, timed: bool) -> tuple[Session, bool]:
    """Store a new session; (the session, whether it was there already).

    `timed` says that the caller gave the start. Raises IdempotencyKeyReused when the id names a session with
    other content.
    """
    held = read_session(tx, session.session_id)
    if held is None:
        write_session(tx, session)
        tally(tx, utc_day(session.started_at), Tally.SESSIONS_STARTED)
        return session, False
    same = (held.device, held.available_seconds) == (session.device, session.available_seconds)
    if not same or (timed and held.started_at != session.started_at):
        raise IdempotencyKeyReused("StartSession", session.session_id)
    return held, True


def end_session(tx: Transaction, session: Session) -> None:
    """Overwrite a session that was open with what it has ended as."""
    write_session(tx, session)
    tally(tx, utc_day(session.ended_at), Tally.SESSIONS_ENDED)


def write_session(tx: Transaction, session: Session) -> None:
    """Insert or overwrite a session; its start must never change."""
    name = codec.digest(session.session_id)
    key = max(round(session.started_at * 1e6), 0).to_bytes(8, "big") + name
    tx.put(Table.SESSION, key, codec.SESSION.encode(session))
    tx.put(Table.SESSION_ID, name, key)


def list_sessions(reader: Reader, *, limit: int | None = None) -> list[Session]:
    """Sessions, the newest start first."""
    return [
        codec.SESSION.decode(value) for _, value in islice(reader.scan(Table.SESSION, reverse=True), limit)
    ]


def record_feedback(tx: Transaction, events: Sequence[FeedbackEvent]) -> list[Outcome]:
    """Store events once each; what became of each."""
    outcomes = []
    for event in events:
        outcome = repeated_feedback(tx, event)
        if outcome is None:
            tx.put(Table.FEEDBACK, codec.digest(event.event_id), codec.FEEDBACK.encode(event))
            tally(tx, utc_day(event.happened_at), feedback_cell(event.kind))
            outcome = Outcome.RECORDED
        outcomes.append(outcome)
    return outcomes


def repeated_feedback(reader: Reader, event: FeedbackEvent) -> Outcome | None:
    """What an event is whose id was recorded before; None for one that is new."""
    first = find_feedback(reader, event.event_id)
    if first is None:
        return None
    return Outcome.DUPLICATE if _told(first) == _told(event) else Outcome.REUSED


def find_feedback(reader: Reader, event_id: str) -> FeedbackEvent | None:
    """An event as it was first stored; None when there is none."""
    value = reader.get(Table.FEEDBACK, codec.digest(event_id))
    return None if value is None else codec.FEEDBACK.decode(value)


def _told(event: FeedbackEvent) -> tuple[str, str, int, int]:
    return event.recommendation_id, event.question_id, event.kind, event.dwell_ms


def read_feedback(reader: Reader) -> list[FeedbackEvent]:
    """Every event, oldest first."""
    events = [codec.FEEDBACK.decode(value) for _, value in reader.scan(Table.FEEDBACK)]
    return sorted(events, key=lambda event: (event.happened_at, event.event_id))


def export_answers(store: Store, partition: Partition, *, page: int = 500) -> Iterator[AnswerLog]:
    """The whole log in order of arrival, a page at a time, each from a short read of its own."""
    first = 1
    while True:
        with store.read(partition) as reader:
            log = read_answers(reader, first=first, limit=page)
        if log.size:
            yield log
            first = int(np.max(log.sequence)) + 1
        if log.size < page:
            return
