"""RecommendationService: slates, what became of them, and why. Scores and reasons belong to the engine."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence

from engine.catalog import Catalog
from engine.policy import Policy
from engine.slate import Slate
from genie.v1 import explanation_pb2, resources_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server import convert, errors
from server.admission import WouldWait
from server.experiments.junction import Junction
from server.pools import PoolCache
from server.rpc import Call
from server.services.explanations import Explainer
from server.services.feedback import take_feedback
from server.services.outcomes import Kept, Outcome
from server.services.slate_bytes import Encoded, batch_results, recommend_responses, slate_message
from server.services.slates import SlateMaker
from server.services.wishes import Wish, wish_of
from server.tenants import Bundle, Tenants
from server.validate import Violations, page_start, page_token
from store.api import Partition, Store
from store.learners import read_answers, read_feedback
from store.slates import find_slate, list_slates

MOST_LEARNERS = 1_000
MOST_EVENTS = 1_000
MOST_EXCLUSIONS = 1_000
MOST_ITEMS = 100
AT_ONCE = 64
"""Most learners of a batch that are worked out together; between such groups the caller's deadline is looked at."""
MOST_REPLY_BYTES = 3_000_000
"""Of a batch: past this no further slate is made. gRPC clients take messages of 4 MiB unless told otherwise."""
FIRST_ITEMS = 400
"""Items of a batch's first slates, from which the size of the others is judged."""
LARGER = 1.3
"""How much larger than the largest slate so far one that follows is taken to be at most."""
HURRY_SECONDS = 0.05
"""A call whose deadline is nearer is answered by itself."""
DEFAULT_SLATES_A_PAGE = 20
MOST_SLATES_A_PAGE = 100

_CLOSING = frozenset({pb.FEEDBACK_KIND_COMPLETED, pb.FEEDBACK_KIND_DISMISSED})


class RecommendationService:
    """Serves `genie.v1.RecommendationService`; see its proto for what each method promises."""

    def __init__(
        self,
        *,
        store: Store,
        serving: Store,
        tenants: Tenants,
        policies: Mapping[str, Policy],
        default_policy: str,
        budget_seconds: float,
        keep_seconds: float,
        experiments: Junction | None = None,
        degraded: Callable[[str], None] = lambda reason: None,
        pools: PoolCache | None = None,
    ) -> None:
        """`degraded` is told why a recommendation could not be all it should; without `pools`, none are kept."""
        self._store = store
        self._serving = serving
        self._tenants = tenants
        self._policies = policies
        self._default_policy = default_policy
        self._maker = SlateMaker(
            store, serving, budget_seconds, keep_seconds, experiments, pools or PoolCache()
        )
        self._experiments = experiments
        self._note_degraded = degraded

    def recommend(self, request: pb.RecommendRequest, call: Call) -> Encoded:
        """Recommend for one learner."""
        (reply,) = self._together([request], [call])
        if isinstance(reply, errors.GenieError):
            raise reply
        return reply

    def recommend_many(
        self, requests: Sequence[pb.RecommendRequest], calls: Sequence[Call]
    ) -> "list[Encoded | Exception]":
        """What `recommend` gives for each of several calls, or raises: alike ones are worked out together."""
        groups: dict[Hashable, list[int]] = {}
        for place, (request, call) in enumerate(zip(requests, calls, strict=True)):
            alike = _alike(request, call)
            groups.setdefault(place if alike is None else alike, []).append(place)
        replies: dict[int, Encoded | Exception] = {}
        for places in groups.values():
            try:
                told = self._together(
                    [requests[place] for place in places], [calls[place] for place in places]
                )
                replies.update(zip(places, told, strict=True))
            except Exception as error:
                if len(places) > 1 and not isinstance(error, WouldWait):
                    # One of them may be at fault: each for itself.
                    alone = [self.recommend_many([requests[place]], [calls[place]])[0] for place in places]
                    replies.update(zip(places, alone, strict=True))
                else:
                    replies.update(dict.fromkeys(places, error))
        return [replies[place] for place in range(len(requests))]

    def _together(
        self, requests: Sequence[pb.RecommendRequest], calls: Sequence[Call]
    ) -> "Sequence[Encoded | errors.GenieError]":
        """The replies to requests that differ by their learner only, or the error of each."""
        # A slate is dated by its call. No other call of them came later, and whatever is read is read after all.
        request, call = requests[0], max(calls, key=lambda one: one.now)
        check = Violations()
        for one in requests:
            check.identifier("learner_id", one.learner_id)
        _check_settings(check, request, call.now)
        check.check()
        policy = self._policy(request.policy)
        bundle = self._tenants.of(call)
        learner_ids = [one.learner_id for one in requests]
        outcomes = self._maker.make(
            learner_ids,
            wish_of(request, bundle, policy),
            bundle,
            call,
            started=call.started,
            calls=calls,
        )
        for outcome in outcomes:
            self._note(outcome)
        level = request.explanation_level or explanation_pb2.EXPLANATION_LEVEL_SIMPLE
        return recommend_responses(outcomes, bundle, level)

    def batch_recommend(self, request: pb.BatchRecommendRequest, call: Call) -> Encoded:
        """Recommend for many learners with the same settings."""
        if len(request.learner_ids) > MOST_LEARNERS:
            raise errors.BatchTooLarge(
                field="learner_ids", size=len(request.learner_ids), limit=MOST_LEARNERS
            )
        check = Violations()
        check.size("learner_ids", len(request.learner_ids), least=1, most=MOST_LEARNERS)
        _check_settings(check, request, call.now)
        check.check()
        policy = self._policy(request.policy)
        bundle = self._tenants.of(call)
        wish = wish_of(request, bundle, policy)
        level = request.explanation_level or explanation_pb2.EXPLANATION_LEVEL_NONE
        asked = _distinct(request.learner_ids)
        results: list[bytes] = []
        full: errors.GenieError | None = None
        while len(results) < len(asked):
            count = _learners_more(results, wish.limit)
            if not count and full is None:
                full = errors.BatchTooLarge(field="learner_ids", size=len(asked), limit=len(results))
            some = asked[len(results) :][: count or AT_ONCE]
            made = iter(
                self._made([name for name, refused in some if refused is None], wish, bundle, call, full)
            )
            outcomes = [refused or next(made) for _, refused in some]
            for outcome in outcomes:
                self._note(outcome)
            results += batch_results([name for name, _ in some], outcomes, bundle, level)
        return Encoded(b"".join(results))

    def _made(
        self,
        learner_ids: Sequence[str],
        wish: Wish,
        bundle: Bundle,
        call: Call,
        full: errors.GenieError | None,
    ) -> Sequence[Outcome]:
        """What becomes of some learners of a batch; `full` when its reply has no room for more."""
        if not learner_ids:
            return ()
        try:
            call.check()
        except errors.GenieError as error:
            full = error
        if full is not None:
            return [full] * len(learner_ids)
        return self._maker.make(learner_ids, wish, bundle, call, started=time.monotonic())

    def list_active_recommendations(
        self, request: pb.ListActiveRecommendationsRequest, call: Call
    ) -> pb.ListActiveRecommendationsResponse:
        """List a learner's slates that are still open, newest first."""
        check = Violations()
        check.identifier("learner_id", request.learner_id)
        size = check.page_size(
            "page_size", request.page_size, default=DEFAULT_SLATES_A_PAGE, most=MOST_SLATES_A_PAGE
        )
        check.check()
        after = page_start(request.page_token, request.learner_id)
        bundle = self._tenants.of(call)
        partition = Partition(call.tenant, request.learner_id)
        records = list_slates(self._serving, partition)
        if after:
            ids = [record.recommendation_id for record in records]
            records = records[ids.index(after) + 1 :] if after in ids else []
        slates = [
            Kept(record, Slate.from_bytes(record.payload))
            for record in records
            if record.expires_at > call.now
        ]
        if not slates:
            return pb.ListActiveRecommendationsResponse()
        with self._store.read(partition) as reader:
            log = read_answers(reader, first=min(kept.slate.answers for kept in slates) + 1)
            events = read_feedback(reader)
        answered = dict(zip(log.batch.question.tolist(), log.sequence.tolist(), strict=True))
        told: dict[tuple[str, str], int] = {}
        for event in events:
            key = (event.recommendation_id, event.question_id)
            told[key] = max(told.get(key, 0), event.kind)
        page: list[pb.Recommendation] = []
        more = ""
        for kept in slates:
            message = slate_message(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_SIMPLE)
            _keep_open(message, kept, bundle.catalog, answered, told)
            if message.items and len(page) == size:
                more = page_token(page[-1].recommendation_id, request.learner_id)
                break
            if message.items:
                page.append(message)
        return pb.ListActiveRecommendationsResponse(recommendations=page, next_page_token=more)

    def record_feedback(self, request: pb.RecordFeedbackRequest, call: Call) -> pb.RecordFeedbackResponse:
        """Record what became of recommended questions."""
        if len(request.events) > MOST_EVENTS:
            raise errors.BatchTooLarge(field="events", size=len(request.events), limit=MOST_EVENTS)
        check = Violations()
        check.size("events", len(request.events), least=1, most=MOST_EVENTS)
        check.check()
        results = take_feedback(self._store, self._serving, self._tenants, request.events, call)
        if self._experiments is not None:
            self._experiments.fed_back(call, request.events, results)
        statuses = [result.status for result in results]
        return pb.RecordFeedbackResponse(
            results=results,
            recorded_count=statuses.count(pb.FEEDBACK_STATUS_RECORDED),
            duplicate_count=statuses.count(pb.FEEDBACK_STATUS_DUPLICATE),
            rejected_count=statuses.count(pb.FEEDBACK_STATUS_REJECTED),
        )

    def explain_recommendation(
        self, request: pb.ExplainRecommendationRequest, call: Call
    ) -> pb.ExplainRecommendationResponse:
        """Explain a question of a slate from what was written down when the slate was made."""
        check = Violations()
        check.identifier("recommendation_id", request.recommendation_id)
        check.identifier("question_id", request.question_id, required=False)
        check.enum("level", request.level, explanation_pb2.ExplanationLevel)
        if request.level == explanation_pb2.EXPLANATION_LEVEL_NONE:
            check.add("level", "must not be NONE")
        check.check()
        record = find_slate(self._serving, call.tenant, request.recommendation_id)
        if record is None:
            raise errors.RecommendationNotFound(recommendation_id=request.recommendation_id)
        place = 0
        if request.question_id and request.question_id in record.question_ids:
            place = record.question_ids.index(request.question_id)
        elif request.question_id or not record.question_ids:
            raise errors.QuestionNotRecommended(
                recommendation_id=request.recommendation_id, question_id=request.question_id
            )
        slate = Slate.from_bytes(record.payload)
        explainer = Explainer(slate, self._tenants.of(call).catalog, record.correlation_id)
        level = request.level or explanation_pb2.EXPLANATION_LEVEL_SIMPLE
        explanation = explainer.explanation(place, level)
        explanation.question_id = record.question_ids[place]
        return pb.ExplainRecommendationResponse(
            recommendation_id=record.recommendation_id,
            learner_id=record.learner_id,
            explanation=explanation,
        )

    def _note(self, outcome: Outcome) -> None:
        if not isinstance(outcome, errors.GenieError) and outcome.degraded:
            reason = pb.DegradedReason.ValueType(outcome.degraded)
            self._note_degraded(pb.DegradedReason.Name(reason).removeprefix("DEGRADED_REASON_"))

    def _policy(self, name: str) -> Policy:
        policy = self._policies.get(name or self._default_policy)
        if policy is None:
            raise errors.UnknownPolicy(policy=name, known_policies=", ".join(sorted(self._policies)))
        return policy


def _alike(request: pb.RecommendRequest, call: Call) -> Hashable:
    """The same for calls that may be answered together, whoever their learners are; nothing for one that may not."""
    if request.request_id or request.exclude_question_ids or request.HasField("context"):
        return None
    if call.remaining() < HURRY_SECONDS:
        # Its deadline must not be that of others.
        return None
    settings = request.limit, request.policy, request.objective_concept_id, request.explanation_level
    return call.tenant, *settings


def _learners_more(results: Sequence[bytes], limit: int) -> int:
    """For how many learners more slates of `limit` items are made together; 0 when the reply has no room left."""
    if not results:
        return max(1, min(AT_ONCE, FIRST_ITEMS // limit))
    left = MOST_REPLY_BYTES - sum(map(len, results))
    return max(1, min(AT_ONCE, int(left / (LARGER * max(map(len, results)))))) if left > 0 else 0


def _check_settings(
    check: Violations, request: pb.RecommendRequest | pb.BatchRecommendRequest, now: float
) -> None:
    check.identifier("request_id", request.request_id, required=False)
    check.whole("limit", request.limit, least=0, most=MOST_ITEMS)
    check.text("policy", request.policy, most=64)
    check.identifier("objective_concept_id", request.objective_concept_id, required=False)
    if request.exclude_question_ids:
        check.size("exclude_question_ids", len(request.exclude_question_ids), most=MOST_EXCLUSIONS)
        for place, question_id in enumerate(request.exclude_question_ids[:MOST_EXCLUSIONS]):
            check.identifier(f"exclude_question_ids[{place}]", question_id)
    check.enum("explanation_level", request.explanation_level, explanation_pb2.ExplanationLevel)
    if request.HasField("context"):
        _check_context(check.part("context"), request.context, now)


def _check_context(check: Violations, context: pb.RecommendationContext, now: float) -> None:
    check.enum("device", context.device, resources_pb2.Device)
    convert.optional_duration(check, "available_duration", context, "available_duration")
    if context.HasField("local_hour"):
        check.whole("local_hour", context.local_hour, least=0, most=23)
    check.identifier("session_id", context.session_id, required=False)
    if context.HasField("as_of_time"):
        check.timestamp("as_of_time", context.as_of_time, now=now)


def _distinct(learner_ids: Sequence[str]) -> list[tuple[str, errors.GenieError | None]]:
    """Each learner id of a batch, with what is wrong with it."""
    seen: set[str] = set()
    judged: list[tuple[str, errors.GenieError | None]] = []
    check = Violations()
    for place, learner_id in enumerate(learner_ids):
        check.identifier(f"learner_ids[{place}]", learner_id)
        if learner_id in seen:
            check.add(f"learner_ids[{place}]", "is listed twice")
        seen.add(learner_id)
        refused: errors.GenieError | None = None
        if check.found:
            refused, check = errors.InvalidRequest(check.found), Violations()
        judged.append((learner_id, refused))
    return judged


def _keep_open(
    message: pb.Recommendation,
    kept: Kept,
    catalog: Catalog,
    answered: Mapping[int, int],
    told: Mapping[tuple[str, str], int],
) -> None:
    """Take out the items that were deleted, completed, dismissed, or answered since; tell what is known of the others.

    `answered` has the newest arrival's sequence by question row. What a slate does not reflect arrived after it.
    """
    open_items = []
    for item, row in zip(message.items, kept.slate.items["question"].tolist(), strict=True):
        kind = told.get((message.recommendation_id, item.question_id), 0)
        deleted = row < len(catalog.question_active) and not catalog.question_active[row]
        if kind in _CLOSING or deleted or answered.get(row, 0) > kept.slate.answers:
            continue
        item.last_feedback_kind = pb.FeedbackKind.ValueType(kind)
        open_items.append(item)
    del message.items[:]
    message.items.extend(open_items)
