"""ImportCatalog: rows in any order, what is left out, and what is told of it."""

import random
from collections.abc import Iterator

import pytest
from google.rpc import error_details_pb2

from genie.v1 import catalog_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.services import imports
from tests.server.catalog_world import (
    Concept,
    Prerequisite,
    World,
    concept,
    question,
    refused,
)
from tests.server.service_calls import a_call


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


def test_an_import_takes_rows_in_any_order(world: World) -> None:
    reply = world.take(
        question("q1", "b", "extra"),
        concept("b", "a", "implied", title="B"),
        concept("a"),
        question("q2", "a"),
    )
    assert (reply.concepts_created_count, reply.concepts_implied_count) == (4, 2)
    assert (reply.questions_created_count, reply.problems_count) == (2, 0)
    assert world.needs("b") == ["a", "implied"]
    again = world.take(
        question("q1", "b", "extra"),
        concept("b", "a", "implied", title="B"),
        concept("a"),
        question("q2", "a"),
    )
    assert again == pb.ImportCatalogResponse(catalog_version=reply.catalog_version)


def test_an_import_spread_over_many_commits_counts_each_entry_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MOST_HELD_BYTES", 40)
    monkeypatch.setattr(imports, "ENTRIES_A_COMMIT", 2)
    rows: list[resources_pb2.Concept | resources_pb2.Question] = [
        concept(f"c{i}", *([f"c{i + 1}"] if i < 19 else [])) for i in range(20)
    ]
    rows += [question(f"q{i}", f"c{i}", f"new{i % 3}") for i in range(20)]
    world.concepts(concept("c3"))
    reply = world.take(*rows)
    assert reply.problems_count == 0
    assert (reply.concepts_created_count, reply.concepts_updated_count) == (22, 1)
    assert (reply.concepts_implied_count, reply.questions_created_count) == (3, 20)
    assert [world.needs(f"c{i}") for i in (0, 18, 19)] == [["c1"], ["c19"], []]


def test_an_import_leaves_out_what_closes_a_cycle(world: World) -> None:
    world.concepts(concept("a"), concept("b", "a"))
    reply = world.take(concept("x", "y"), concept("y", "z"), concept("z", "x"), concept("a", "b"))
    assert (reply.problems_count, [p.stored_in_part for p in reply.problems]) == (2, [True, True])
    assert [p.entry_id for p in reply.problems][-1] == "a"
    info = error_details_pb2.ErrorInfo()
    assert reply.problems[1].error.details[0].Unpack(info)
    assert (info.reason, info.metadata["cycle"]) == ("PREREQUISITE_CYCLE", "a > b > a")
    assert world.needs("a") == []
    assert sum(len(world.needs(name)) for name in "xyz") == 2
    assert len(world.graph().nodes) == 5


def test_an_import_that_turns_an_edge_round_is_no_cycle(world: World) -> None:
    world.concepts(concept("a"), concept("b", "a"))
    for rows in ([concept("a", "b"), concept("b")], [concept("a"), concept("b", "a")]):
        assert world.take(*rows).problems_count == 0


@pytest.mark.parametrize("seed", range(12))
def test_random_imports_leave_a_sound_graph_that_lacks_only_what_it_must(world: World, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(14)]
    world.concepts(*(concept(n, *rng.sample(names[:i], min(i, 2))) for i, n in enumerate(names[:8])))
    rows = [concept(n, *rng.sample(names, rng.randint(0, 3))) for n in rng.sample(names, 10)]
    reply = world.take(*rows)
    assert len(world.graph().nodes) == len(
        world.service.list_concepts(pb.ListConceptsRequest(), a_call()).concepts
    )
    wanted = {row.concept_id: [edge.concept_id for edge in row.prerequisites] for row in rows}
    for name, needs in wanted.items():
        for gone in set(needs) - set(world.needs(name)):
            back = [*world.concept(name).prerequisites, Prerequisite(concept_id=gone)]
            with pytest.raises(errors.PrerequisiteCycle):
                world.concepts(Concept(concept_id=name, prerequisites=back))
    assert (reply.problems_count > 0) == any(set(n) != set(world.needs(c)) for c, n in wanted.items())


def test_an_import_reports_rows_that_cannot_be_stored_and_goes_on(world: World) -> None:
    reply = world.stream(
        [
            pb.ImportCatalogRequest(concept=concept("ok")),
            pb.ImportCatalogRequest(),
            pb.ImportCatalogRequest(concept=concept("bad", "bad2", title="x" * 300)),
            pb.ImportCatalogRequest(question=question("q1", "ok", embedding=[1] * 8)),
            pb.ImportCatalogRequest(question=question("q2", "ok", embedding=[1] * 9)),
            pb.ImportCatalogRequest(question=question("q\n3")),
        ]
    )
    assert [problem.row_index for problem in reply.problems] == [1, 2, 4, 5]
    assert [problem.entry_id for problem in reply.problems] == ["", "bad", "q2", "q\\u000a3"]
    assert not any(problem.stored_in_part for problem in reply.problems)
    assert (reply.problems_count, reply.questions_created_count, reply.concepts_created_count) == (4, 1, 1)


def test_an_import_tells_only_so_many_problems(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MOST_PROBLEMS", 3)
    monkeypatch.setattr(imports, "MOST_ROWS", 6)
    reply = world.stream([pb.ImportCatalogRequest()] * 5)
    assert (reply.problems_count, len(reply.problems)) == (5, 3)
    facts = refused(errors.BatchTooLarge, lambda: world.stream([pb.ImportCatalogRequest()] * 7))
    assert facts["limit"] == "6"


def test_problems_of_an_import_fit_into_a_reply(world: World) -> None:
    bad = Concept(concept_id="\n" * 128, tags=["\n" * 65] * 32, prerequisites=[Prerequisite()] * 64)
    reply = world.stream([pb.ImportCatalogRequest(concept=bad)] * 1_000)
    assert len(reply.problems) == 1_000
    assert reply.ByteSize() < 4 * 1_048_576
