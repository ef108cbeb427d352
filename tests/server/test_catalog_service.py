"""CatalogService against the stores, without a wire; its imports are tested beside."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import catalog_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.services.catalog import CatalogService
from store.api import IdempotencyKeyReused
from store.memory_store import MemoryStore
from tests.server.catalog_world import (
    Concept,
    Prerequisite,
    Question,
    World,
    concept,
    question,
    refused,
    violations,
)
from tests.server.service_calls import NOW, a_call


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


def test_a_concept_comes_back_as_it_was_told(world: World) -> None:
    told = Concept(
        concept_id="fractions",
        title="Fractions",
        topic="Numbers",
        area="Arithmetic",
        description="Parts of a whole",
        prerequisites=[
            Prerequisite(concept_id="count", hardness=resources_pb2.PREREQUISITE_HARDNESS_SOFT),
            Prerequisite(concept_id="divide", encompassed_weight=0.0),
        ],
        typical_duration=Duration(seconds=40, nanos=500_000_000),
        tags=["a", "b"],
    )
    reply = world.concepts(concept("count"), concept("divide", "count"), told)
    assert (reply.created_count, reply.updated_count, reply.unchanged_count) == (3, 0, 0)
    held = world.concept("fractions")
    told.prerequisites[1].hardness = resources_pb2.PREREQUISITE_HARDNESS_HARD
    told.create_time.FromSeconds(int(NOW))
    told.update_time.FromSeconds(int(NOW))
    assert 0.0 < held.importance < 1.0
    held.importance = 0.0
    assert held == told
    assert world.concept("count").importance == 1.0


def test_storing_the_same_again_changes_nothing(world: World) -> None:
    first = world.concepts(concept("a"), concept("b", "a"))
    again = world.concepts(concept("a"), concept("b", "a", title="B"))
    assert (again.created_count, again.updated_count, again.unchanged_count) == (0, 1, 1)
    assert again.catalog_version == first.catalog_version + 1
    same = world.concepts(concept("b", "a", title="B"))
    assert (same.unchanged_count, same.catalog_version) == (1, again.catalog_version)


def test_a_batch_may_name_its_own_concepts_in_any_order(world: World) -> None:
    world.concepts(concept("c", "b"), concept("b", "a"), concept("a"))
    assert [node.concept_id for node in world.graph().nodes] == ["a", "b", "c"]


def test_a_cycle_is_refused_by_name_and_nothing_is_stored(world: World) -> None:
    world.concepts(concept("add"), concept("multiply", "add"))
    facts = refused(
        errors.PrerequisiteCycle, lambda: world.concepts(concept("new"), concept("add", "multiply"))
    )
    assert facts["cycle"] in ("add > multiply > add", "multiply > add > multiply")
    refused(errors.ConceptNotFound, lambda: world.concept("new"))
    assert world.needs("add") == []


def test_a_cycle_through_stored_concepts_is_found_and_a_mended_one_is_not_one(world: World) -> None:
    world.concepts(concept("a"), concept("b", "a"), concept("c", "b"), concept("d", "c"))
    refused(errors.PrerequisiteCycle, lambda: world.concepts(concept("a", "d")))
    refused(errors.PrerequisiteCycle, lambda: world.concepts(concept("a", "a")))
    world.concepts(concept("b"), concept("a", "d"))
    assert world.needs("a") == ["d"]


def test_a_prerequisite_that_is_nowhere_is_refused(world: World) -> None:
    facts = refused(errors.ConceptNotFound, lambda: world.concepts(concept("b", "a", "z"), concept("a")))
    assert facts == {"concept_id": "z"}
    refused(errors.ConceptNotFound, lambda: world.concept("a"))


def test_every_violation_is_named_at_once(world: World) -> None:
    bad = Concept(
        concept_id="",
        title="x" * 257,
        tags=[""],
        prerequisites=[Prerequisite(concept_id="p", encompassed_weight=2.0), Prerequisite(concept_id="p")],
    )
    found = violations(lambda: world.concepts(concept("ok"), bad, concept("ok"), request_id="\n"))
    assert found == [
        "concepts[1].concept_id",
        "concepts[1].prerequisites[0].encompassed_weight",
        "concepts[1].prerequisites[1].concept_id",
        "concepts[1].tags[0]",
        "concepts[1].title",
        "concepts[2].concept_id",
        "request_id",
    ]


@pytest.mark.parametrize(
    "work",
    [
        lambda w: w.concepts(),
        lambda w: w.questions(),
        lambda w: w.service.delete_concepts(pb.DeleteConceptsRequest(), a_call()),
        lambda w: w.service.delete_questions(pb.DeleteQuestionsRequest(question_ids=["a", "a"]), a_call()),
        lambda w: w.service.get_concept(pb.GetConceptRequest(concept_id="\0"), a_call()),
        lambda w: w.service.get_question(pb.GetQuestionRequest(question_id="é" * 129), a_call()),
        lambda w: w.service.list_concepts(pb.ListConceptsRequest(page_size=-1), a_call()),
        lambda w: w.service.list_questions(pb.ListQuestionsRequest(tag="x" * 65), a_call()),
        lambda w: w.graph(max_steps=3),
        lambda w: w.graph(root_concept_id="a", direction=9),
        lambda w: w.questions(question("q")),
        lambda w: w.questions(question("q", "a", embedding=[float("nan")] * 8)),
        lambda w: w.questions(question("q", "a", difficulty=float("inf"))),
    ],
)
def test_wrong_input_is_told_by_field(world: World, work: Callable[[World], object]) -> None:
    world.concepts(concept("a"))
    assert violations(lambda: work(world))


@pytest.mark.parametrize(
    "work",
    [
        lambda w: w.concepts(*(concept(f"c{i}") for i in range(1_001))),
        lambda w: w.questions(*(question(f"q{i}", "a") for i in range(1_001))),
        lambda w: w.service.delete_concepts(pb.DeleteConceptsRequest(concept_ids=["x"] * 1_001), a_call()),
        lambda w: w.service.delete_questions(pb.DeleteQuestionsRequest(question_ids=["x"] * 1_001), a_call()),
    ],
)
def test_a_batch_too_large_is_refused(world: World, work: Callable[[World], object]) -> None:
    assert refused(errors.BatchTooLarge, lambda: work(world))["size"] == "1001"


def test_a_request_id_makes_a_retry_harmless(world: World) -> None:
    first = world.concepts(concept("a"), request_id="r-1")
    assert world.concepts(concept("a"), request_id="r-1") == first
    assert first.created_count == 1
    with pytest.raises(IdempotencyKeyReused):
        world.concepts(concept("b"), request_id="r-1")
    refused(errors.ConceptNotFound, lambda: world.concept("b"))


def test_a_refused_request_is_not_remembered(world: World) -> None:
    refused(errors.ConceptNotFound, lambda: world.concepts(concept("b", "a"), request_id="r-1"))
    world.concepts(concept("a"))
    assert world.concepts(concept("b", "a"), request_id="r-1").created_count == 1


def test_pages_follow_each_other_by_id(world: World) -> None:
    names = [f"c{i:02d}" for i in range(25)] + ["é", "z%", "日本"]
    shuffled = random.Random(3).sample(names, len(names))
    world.concepts(*(concept(n, area="odd" if i % 2 else "even") for i, n in enumerate(shuffled)))
    seen, token, pages = list[str](), "", 0
    while True:
        page = world.service.list_concepts(pb.ListConceptsRequest(page_size=10, page_token=token), a_call())
        seen += [entry.concept_id for entry in page.concepts]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
        world.concepts(concept(f"a{pages}"), concept(f"zz{pages}"))
    assert [name for name in seen if not name.startswith(("a", "zz"))] == sorted(names)
    assert len(seen) == len(set(seen))
    odd = world.service.list_concepts(pb.ListConceptsRequest(area="odd", page_size=5), a_call())
    assert all(entry.area == "odd" for entry in odd.concepts)
    assert len(odd.concepts) == 5
    refused(
        errors.InvalidPageToken,
        lambda: world.service.list_concepts(
            pb.ListConceptsRequest(area="even", page_token=odd.next_page_token), a_call()
        ),
    )


def test_lists_are_filtered(world: World) -> None:
    world.concepts(
        concept("a", area="X", topic="T", tags=["t1"]), concept("b", area="X", tags=["t2"]), concept("c")
    )
    world.questions(question("q1", "a"), question("q2", "a", "b", tags=["hard"]), question("q3", "c"))

    def concepts(**filters: Any) -> list[str]:
        reply = world.service.list_concepts(pb.ListConceptsRequest(**filters), a_call())
        return [entry.concept_id for entry in reply.concepts]

    def questions(**filters: Any) -> list[str]:
        reply = world.service.list_questions(pb.ListQuestionsRequest(**filters), a_call())
        return [entry.question_id for entry in reply.questions]

    assert concepts(area="X") == ["a", "b"]
    assert concepts(area="X", topic="T", tag="t1") == ["a"]
    assert concepts(tag="t2") == ["b"]
    assert concepts(area="Y") == []
    assert questions(concept_id="a") == ["q1", "q2"]
    assert questions(concept_id="a", tag="hard") == ["q2"]
    assert questions(concept_id="nowhere") == []
    assert questions() == ["q1", "q2", "q3"]


def test_questions_of_a_concept_are_found_whether_or_not_the_snapshot_is_of_this_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.concepts(concept("a"), concept("b"))
    world.questions(*(question(f"q{i}", "a" if i % 2 else "b") for i in range(9)))
    stale = world.tenants.bundle("default")
    request = pb.ListQuestionsRequest(concept_id="a", page_size=2)
    fresh_page = world.service.list_questions(request, a_call())
    monkeypatch.setattr(world.tenants, "bundle", lambda *_, **__: stale)
    world.questions(question("q1", "b"), question("q10", "a"))
    page = world.service.list_questions(request, a_call())
    assert [entry.question_id for entry in fresh_page.questions] == ["q1", "q3"]
    assert [entry.question_id for entry in page.questions] == ["q10", "q3"]


def test_a_question_comes_back_as_it_was_told(world: World) -> None:
    world.concepts(concept("b"), concept("a"))
    told = Question(
        question_id="q",
        concept_ids=["a", "b"],
        text="What is ½?",
        difficulty=0.25,
        expected_duration=Duration(seconds=30),
        tags=["t"],
        embedding=[0.5] * 8,
    )
    assert world.questions(told).created_count == 1
    assert world.questions(told).unchanged_count == 1
    held = world.service.get_question(pb.GetQuestionRequest(question_id="q"), a_call()).question
    told.create_time.FromSeconds(int(NOW))
    told.update_time.FromSeconds(int(NOW))
    assert held == told
    refused(
        errors.QuestionNotFound,
        lambda: world.service.get_question(pb.GetQuestionRequest(question_id="p"), a_call()),
    )


def test_a_question_of_a_concept_that_is_nowhere_is_refused(world: World) -> None:
    world.concepts(concept("a"))
    facts = refused(
        errors.ConceptNotFound, lambda: world.questions(question("q1", "a"), question("q2", "a", "b"))
    )
    assert facts == {"concept_id": "b"}
    assert not world.service.list_questions(pb.ListQuestionsRequest(), a_call()).questions


def test_embeddings_are_all_of_one_length(world: World) -> None:
    world.concepts(concept("a"))
    world.questions(question("plain", "a"))
    facts = refused(
        errors.EmbeddingSizeMismatch,
        lambda: world.questions(
            question("q1", "a", embedding=[1] * 8), question("q2", "a", embedding=[1] * 9)
        ),
    )
    assert facts == {"question_id": "q2", "size": "9", "expected_size": "8"}
    world.questions(question("q1", "a", embedding=[1] * 8))
    world.questions(question("plain", "a"))
    refused(errors.EmbeddingSizeMismatch, lambda: world.questions(question("q2", "a", embedding=[1] * 9)))
    world.questions(question("q1", "a", embedding=[1] * 9))
    world.questions(question("q2", "a", embedding=[1] * 9))
    other = CatalogService(store=world.store, serving=MemoryStore(), tenants=world.tenants)
    refused(
        errors.EmbeddingSizeMismatch,
        lambda: other.upsert_questions(
            pb.UpsertQuestionsRequest(questions=[question("q3", "a", embedding=[1] * 8)]), a_call()
        ),
    )


def test_a_concept_in_use_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.concepts(concept("a"), concept("b", "a"), concept("c", "a"), concept("d"))
    world.questions(question("q", "a"))

    def delete(*ids: str) -> pb.DeleteConceptsResponse:
        return world.service.delete_concepts(pb.DeleteConceptsRequest(concept_ids=ids), a_call())

    assert refused(errors.ConceptInUse, lambda: delete("d", "a")) == {"concept_id": "a", "uses_count": "3"}
    assert refused(errors.ConceptInUse, lambda: delete("a", "b"))["uses_count"] == "2"
    assert world.concept("d").concept_id == "d"
    stale = world.tenants.bundle("default")
    with monkeypatch.context() as patch:
        patch.setattr(world.tenants, "bundle", lambda *_, **__: stale)
        world.questions(question("r", "a", "d"))
        assert refused(errors.ConceptInUse, lambda: delete("a", "b"))["uses_count"] == "3"
        assert refused(errors.ConceptInUse, lambda: delete("d")) == {"concept_id": "d", "uses_count": "1"}
    world.service.delete_questions(pb.DeleteQuestionsRequest(question_ids=["q", "r", "none"]), a_call())
    reply = delete("a", "b", "c", "none")
    assert reply.deleted_count == 3
    refused(errors.ConceptNotFound, lambda: world.concept("a"))


def test_graph_around_a_concept(world: World) -> None:
    world.concepts(
        concept("a", area="X"),
        concept("b", "a", area="X"),
        Concept(
            concept_id="c",
            prerequisites=[
                Prerequisite(concept_id="b", encompassed_weight=0.3),
                Prerequisite(concept_id="a", hardness=resources_pb2.PREREQUISITE_HARDNESS_SOFT),
            ],
        ),
        concept("d", "c"),
        concept("lonely"),
    )
    world.questions(question("q", "c"))

    def around(root: str, direction: int, steps: int = 0, area: str = "") -> list[str]:
        reply = world.graph(root_concept_id=root, direction=direction, max_steps=steps, area=area)
        return [entry.concept_id for entry in reply.nodes]

    assert around("c", pb.GRAPH_DIRECTION_UNSPECIFIED) == ["a", "b", "c"]
    assert around("b", pb.GRAPH_DIRECTION_DEPENDENTS) == ["b", "c", "d"]
    assert around("b", pb.GRAPH_DIRECTION_DEPENDENTS, 1) == ["b", "c"]
    assert around("b", pb.GRAPH_DIRECTION_BOTH) == ["a", "b", "c", "d"]
    assert around("d", pb.GRAPH_DIRECTION_PREREQUISITES, area="X") == ["a", "b"]
    assert around("d", pb.GRAPH_DIRECTION_PREREQUISITES, area="nowhere") == []
    refused(errors.ConceptNotFound, lambda: around("zzz", pb.GRAPH_DIRECTION_BOTH))
    node = {entry.concept_id: entry for entry in world.graph().nodes}["c"]
    assert (node.depth, node.questions_count, node.dependents_count, node.title) == (2, 1, 1, "c")
    weights = {edge.concept_id: edge.encompassed_weight for edge in node.prerequisites}
    assert weights["b"] == 0.3
    assert 0.0 < weights["a"] < 1.0


def test_graph_pages_put_every_concept_after_its_prerequisites(world: World) -> None:
    rng = random.Random(5)
    names = [f"n{i}" for i in range(40)]
    rng.shuffle(names)
    world.concepts(*(concept(n, *rng.sample(names[:i], min(i, 2))) for i, n in enumerate(names)))
    seen, token = list[str](), ""
    while True:
        page = world.graph(page_size=7, page_token=token)
        for entry in page.nodes:
            assert {edge.concept_id for edge in entry.prerequisites} <= set(seen)
            seen.append(entry.concept_id)
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(names)


def test_a_page_stays_small_enough_for_a_client(world: World) -> None:
    world.concepts(concept("a"))
    for start in range(0, 400, 40):
        world.questions(*(question(f"q{i:03d}", "a", text="日" * 10_000) for i in range(start, start + 40)))
    seen, token, pages = list[str](), "", 0
    while True:
        request = pb.ListQuestionsRequest(page_size=1_000, page_token=token)
        page = world.service.list_questions(request, a_call())
        assert page.ByteSize() < 4 * 1_048_576
        seen += [entry.question_id for entry in page.questions]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert seen == [f"q{i:03d}" for i in range(400)]
    assert pages > 2
