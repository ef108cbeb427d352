"""LearnerService: profiles, and what is derived from answers. Records no answers itself."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from engine import habits
from engine.learner import ConceptView, LearnerState
from engine.policy import Policy
from engine.types import LearnerGoal, LearnerProfile
from genie.v1 import learner_service_pb2 as pb
from server import convert, errors
from server.experiments.junction import Junction
from server.idempotency import reply_once
from server.learner_views import concept_mastery_message, stats_message, touched_rows, view_of
from server.local_days import local_day
from server.rpc import Call
from server.services.answers import committed
from server.services.catalog_entries import found, lost_concept
from server.services.export import export_messages, read_records
from server.services.learner_requests import check_learner, label_filters, masked_parts, profile_from
from server.services.learning_profile import LATEST_ANSWERS, learning_profile_message
from server.services.paging import open_page, take_page
from server.services.plans import goal_gap, plan, plan_messages
from server.services.progress import milestones_page, progress_message
from server.tenants import Bundle, Tenants
from server.validate import Violations
from store.answer_log import chronological
from store.api import Partition, Reader, Store, Table, Transaction
from store.learners import (
    create_profile,
    first_answer_day,
    read_answers,
    read_profile,
    read_state,
    write_profile,
)
from store.recount import erase_noted
from store.slates import erase_slates

DEFAULT_PAGE = 100
MOST_PAGE = 1_000
MOST_CONCEPTS_NAMED = 1_000
DEFAULT_PROGRESS_DAYS = 30
MOST_PROGRESS_DAYS = 365
MOST_PLAN_DAYS = 30
_LISTED_AT_ONCE = 500
_ERASING_SECONDS = 60.0
"""An erasure takes no longer; of one that was cut short, nothing is made that is kept for so long."""

M = TypeVar("M", bound=Message)


class _Known(NamedTuple):
    """A learner as read at one moment."""

    profile: LearnerProfile
    state: LearnerState
    view: ConceptView


class LearnerService:
    """Serves `genie.v1.LearnerService`."""

    def __init__(
        self,
        *,
        store: Store,
        serving: Store,
        tenants: Tenants,
        policy: Policy,
        experiments: Junction | None = None,
    ) -> None:
        """`policy` is that of recommendations which name none."""
        self._store = store
        self._serving = serving
        self._tenants = tenants
        self._policy = policy
        self._experiments = experiments

    def create_learner(self, request: pb.CreateLearnerRequest, call: Call) -> pb.CreateLearnerResponse:
        """Take in a learner; the same profile again is no error."""
        check = Violations()
        check.identifier("request_id", request.request_id, required=False)
        profile = profile_from(check, request, now=call.now)
        check.check()
        lost = lost_concept(self._store, call.tenant, profile.goal.concept_id)

        def reply(tx: Transaction) -> pb.CreateLearnerResponse:
            held = read_profile(tx)
            if held is None:
                found(lost)
                create_profile(tx, profile)
                return pb.CreateLearnerResponse(learner=convert.learner_message(profile))
            told = dataclasses.replace(profile, created_at=held.created_at, updated_at=held.updated_at)
            if told == held:
                return pb.CreateLearnerResponse(learner=convert.learner_message(held))
            found(lost)
            # Their first answer came before their profile: then there is a record, and nobody has described it yet.
            bare = LearnerProfile(held.learner_id, created_at=held.created_at, updated_at=held.updated_at)
            if held != bare:
                raise errors.LearnerAlreadyExists(learner_id=profile.learner_id)
            described = dataclasses.replace(profile, created_at=held.created_at)
            write_profile(tx, described)
            return pb.CreateLearnerResponse(learner=convert.learner_message(described))

        return self._change(request, call, profile.learner_id, pb.CreateLearnerResponse, reply)

    def get_learner(self, request: pb.GetLearnerRequest, call: Call) -> pb.GetLearnerResponse:
        """Read a profile."""
        check_learner(request).check()
        with self._reader(request, call) as (_, profile):
            return pb.GetLearnerResponse(learner=convert.learner_message(profile))

    def update_learner(self, request: pb.UpdateLearnerRequest, call: Call) -> pb.UpdateLearnerResponse:
        """Change what the mask names."""
        check = Violations()
        check.identifier("request_id", request.request_id, required=False)
        told = profile_from(check, request, now=call.now)
        paths = masked_parts(check, request)
        check.check()
        concept_id = told.goal.concept_id if "goal" in paths else ""
        lost = lost_concept(self._store, call.tenant, concept_id)

        def reply(tx: Transaction) -> pb.UpdateLearnerResponse:
            found(lost)
            changes = {path: getattr(told, path) for path in paths}
            profile = _rewrite(tx, told.learner_id, changes, now=call.now)
            return pb.UpdateLearnerResponse(learner=convert.learner_message(profile))

        return self._change(request, call, told.learner_id, pb.UpdateLearnerResponse, reply)

    def delete_learner(self, request: pb.DeleteLearnerRequest, call: Call) -> pb.DeleteLearnerResponse:
        """Erase everything held about a learner, the slates first: once the profile is gone, all is.

        What calls make of the learner while that goes on is not kept.
        """
        learner_id = request.learner_id
        check_learner(request).check()
        partition = Partition(call.tenant, learner_id)
        if self._experiments is not None:
            self._experiments.erased(learner_id, call, call.now)
        with self._store.read(partition) as reader:
            known = read_profile(reader) is not None
        began = time.time()
        entries = erase_slates(
            self._serving, partition, up_to=began, until=began + _ERASING_SECONDS, known=known
        )
        work = partial(erase_noted, learner_id=learner_id, now=call.now, known=known or entries > 0)
        erasing = self._store.submit_bulk([Partition(call.tenant), partition], work)
        entries += committed(erasing, call)
        if known or entries:
            # Whoever has read what is erased now, or has an answer among it, called before this moment.
            erased = time.time()
            if self._experiments is not None:
                self._experiments.erased(learner_id, call, erased)
            erase_slates(self._serving, partition, up_to=erased)
        return pb.DeleteLearnerResponse()

    def list_learners(self, request: pb.ListLearnersRequest, call: Call) -> pb.ListLearnersResponse:
        """List profiles by id."""
        check = Violations()
        labels = label_filters(check, request.labels)
        size = check.page_size("page_size", request.page_size, default=DEFAULT_PAGE, most=MOST_PAGE)
        check.check()
        at_risk = request.at_risk_only
        page = open_page(request.page_token, size, "ListLearners", at_risk, *sorted(labels))
        labelled = (p for p in self._profiles(page.after, call) if labels <= set(p.labels.items()))
        wanted = (p for p in labelled if self._at_risk(p, call)) if at_risk else labelled
        messages = map(convert.learner_message, wanted)
        learners, token = take_page(page, messages, lambda learner: learner.learner_id)
        return pb.ListLearnersResponse(learners=learners, next_page_token=token)

    def export_learner(
        self, request: pb.ExportLearnerRequest, call: Call
    ) -> Iterator[pb.ExportLearnerResponse]:
        """Stream all that is held about a learner."""
        check_learner(request).check()
        bundle = self._tenants.of(call)
        with self._reader(request, call) as (reader, profile):
            partition = Partition(call.tenant, request.learner_id)
            records = read_records(reader, profile, self._serving, partition, bundle)
        for message in export_messages(records, self._store, call.tenant, bundle, call.now):
            call.check()
            yield message

    def get_learner_stats(self, request: pb.GetLearnerStatsRequest, call: Call) -> pb.GetLearnerStatsResponse:
        """Totals, streak and today's goal."""
        check_learner(request).check()
        bundle = self._tenants.of(call)
        with self._reader(request, call) as (reader, profile):
            state = read_state(reader, bundle.learner_model.memory_sets)
            first_day = first_answer_day(reader, state)
        view = view_of(state, bundle.catalog, bundle.learner_model, call.now)
        stats = stats_message(profile, state, first_day, bundle.catalog, view, call.now)
        return pb.GetLearnerStatsResponse(stats=stats)

    def get_learner_progress(
        self, request: pb.GetLearnerProgressRequest, call: Call
    ) -> pb.GetLearnerProgressResponse:
        """How practice and mastery went, from the whole log."""
        check = check_learner(request)
        check.whole("days", request.days, least=0, most=MOST_PROGRESS_DAYS)
        check.text("area", request.area, most=convert.MOST_NAME)
        check.check()
        bundle = self._tenants.of(call)
        with self._reader(request, call) as (reader, profile):
            log = read_answers(reader)
            state = read_state(reader, bundle.learner_model.memory_sets)
        log = log.take(chronological(log))
        view = view_of(state, bundle.catalog, bundle.learner_model, call.now)
        days = request.days or DEFAULT_PROGRESS_DAYS
        return progress_message(profile, log, bundle.catalog, view, call.now, request.area, days)

    def list_milestones(self, request: pb.ListMilestonesRequest, call: Call) -> pb.ListMilestonesResponse:
        """Milestones reached, from the whole log."""
        check = check_learner(request)
        size = check.page_size("page_size", request.page_size, default=DEFAULT_PAGE, most=MOST_PAGE)
        check.check()
        page = open_page(request.page_token, size, "ListMilestones", request.learner_id)
        with self._reader(request, call) as (reader, _):
            log = read_answers(reader)
        return milestones_page(log.take(chronological(log)), page)

    def get_learning_profile(
        self, request: pb.GetLearningProfileRequest, call: Call
    ) -> pb.GetLearningProfileResponse:
        """How the learner learns."""
        check_learner(request).check()
        bundle = self._tenants.of(call)
        with self._reader(request, call) as (reader, profile):
            state = read_state(reader, bundle.learner_model.memory_sets)
            first_day = first_answer_day(reader, state)
            latest = read_answers(reader, newest_first=True, limit=LATEST_ANSWERS)
        view = view_of(state, bundle.catalog, bundle.learner_model, call.now)
        message = learning_profile_message(
            profile, state, first_day, view, bundle.catalog, latest, self._policy, call
        )
        return pb.GetLearningProfileResponse(learning_profile=message)

    def get_mastery(self, request: pb.GetMasteryRequest, call: Call) -> pb.GetMasteryResponse:
        """Mastery and memory by concept."""
        check = check_learner(request)
        named = check.identifiers("concept_ids", request.concept_ids, most=MOST_CONCEPTS_NAMED)
        size = check.page_size("page_size", request.page_size, default=DEFAULT_PAGE, most=MOST_PAGE)
        check.check()
        page = open_page(request.page_token, size, "GetMastery", request.learner_id, *sorted(named))
        bundle = self._bundle(call, named)
        known = self._known(request, call, bundle)
        catalog = bundle.catalog
        if named:
            rows = [_concept_row(bundle, concept_id) for concept_id in named]
        else:
            rows = touched_rows(known.state, catalog).tolist()
        by_id = sorted((catalog.concept_ids[row], row) for row in rows)
        following = (row for concept_id, row in by_id if concept_id > page.after)
        messages = (concept_mastery_message(catalog, known.view, row, call.now) for row in following)
        masteries, token = take_page(page, messages, lambda mastery: mastery.concept_id)
        return pb.GetMasteryResponse(masteries=masteries, next_page_token=token)

    def set_goal(self, request: pb.SetGoalRequest, call: Call) -> pb.SetGoalResponse:
        """Set what the learner works towards, and tell what stands between."""
        check = check_learner(request)
        check.identifier("request_id", request.request_id, required=False)
        goal = convert.goal_from(check.part("goal"), request.goal)
        check.check()
        lost = lost_concept(self._store, call.tenant, goal.concept_id)
        bundle = self._bundle(call, [goal.concept_id] if goal.concept_id else [])

        def reply(tx: Transaction) -> pb.SetGoalResponse:
            found(lost)
            _rewrite(tx, request.learner_id, {"goal": goal}, now=call.now)
            state = read_state(tx, bundle.learner_model.memory_sets)
            return pb.SetGoalResponse(
                goal=convert.goal_message(goal), gap_concept_ids=_gap(bundle, state, goal, call.now)
            )

        return self._change(request, call, request.learner_id, pb.SetGoalResponse, reply)

    def plan_practice(self, request: pb.PlanPracticeRequest, call: Call) -> pb.PlanPracticeResponse:
        """The next days, from memory and the graph."""
        check = check_learner(request)
        check.whole("days", request.days, least=0, most=MOST_PLAN_DAYS)
        check.check()
        bundle = self._tenants.of(call)
        profile, state, view = self._known(request, call, bundle)
        numbers, days = plan(profile, state, view, bundle, call.now, request.days)
        return pb.PlanPracticeResponse(days=plan_messages(numbers, days, bundle.catalog, view))

    @contextmanager
    def _reader(self, request: Any, call: Call) -> Iterator[tuple[Reader, LearnerProfile]]:
        """The learner's partition and profile at one moment. Raises LearnerNotFound."""
        with self._store.read(Partition(call.tenant, request.learner_id)) as reader:
            profile = read_profile(reader)
            if profile is None:
                raise errors.LearnerNotFound(learner_id=request.learner_id)
            yield reader, profile

    def _known(self, request: Any, call: Call, bundle: Bundle) -> _Known:
        """The learner with a view of every concept at the time of the call. Raises LearnerNotFound."""
        with self._reader(request, call) as (reader, profile):
            state = read_state(reader, bundle.learner_model.memory_sets)
        return _Known(profile, state, view_of(state, bundle.catalog, bundle.learner_model, call.now))

    def _bundle(self, call: Call, named: Sequence[str]) -> Bundle:
        """The tenant's bundle; the newest, when one that is being replaced lacks a concept that is named."""
        bundle = self._tenants.of(call)
        if any(concept_id not in bundle.catalog.concept_row for concept_id in named):
            return self._tenants.of(call, fresh=True)
        return bundle

    def _profiles(self, after: str, call: Call) -> Iterator[LearnerProfile]:
        """Every profile with an id > `after`, by id."""
        while ids := self._store.learners(call.tenant, Table.PROFILE, after=after, limit=_LISTED_AT_ONCE):
            call.check()
            for learner_id in ids:
                with self._store.read(Partition(call.tenant, learner_id)) as reader:
                    profile = read_profile(reader)
                if profile is not None:
                    yield profile
            after = ids[-1]

    def _at_risk(self, profile: LearnerProfile, call: Call) -> bool:
        memory_sets = self._tenants.of(call).learner_model.memory_sets
        with self._store.read(Partition(call.tenant, profile.learner_id)) as reader:
            state = read_state(reader, memory_sets)
        return bool(habits.risks(state, local_day(call.now, profile.time_zone), call.now))

    def _change(
        self, request: Any, call: Call, learner_id: str, kind: type[M], reply: Callable[[Transaction], M]
    ) -> M:
        """Change a learner's records once for each request id."""
        operation = self._store.submit(
            Partition(call.tenant, learner_id),
            lambda tx: reply_once(tx, request, call, kind, lambda: reply(tx)),
        )
        return committed(operation, call)


def _rewrite(tx: Transaction, learner_id: str, changes: Mapping[str, Any], *, now: float) -> LearnerProfile:
    """The learner's profile with changes, stored when there are any. Raises LearnerNotFound."""
    held = read_profile(tx)
    if held is None:
        raise errors.LearnerNotFound(learner_id=learner_id)
    profile = dataclasses.replace(held, **changes)
    if profile != held:
        profile = dataclasses.replace(profile, updated_at=now)
        write_profile(tx, profile)
    return profile


def _concept_row(bundle: Bundle, concept_id: str) -> int:
    row = bundle.catalog.concept_row.get(concept_id)
    if row is None:
        raise errors.ConceptNotFound(concept_id=concept_id)
    return row


def _gap(bundle: Bundle, state: LearnerState, goal: LearnerGoal, now: float) -> list[str]:
    """Ids of what is to be mastered on the way to the goal."""
    view = view_of(state, bundle.catalog, bundle.learner_model, now)
    gap = goal_gap(goal, view, bundle.catalog)
    return [bundle.catalog.concept_ids[missing] for missing in gap or []]
