"""GetConceptGraph: which concepts, in which order, and a node for each. Reads a catalogue snapshot only."""

from collections.abc import Iterator

import numpy as np

from engine.catalog import Catalog
from engine.graph import reach
from engine.types import I8, NO_ROW, Prerequisite
from genie.v1 import catalog_service_pb2 as pb
from server import convert, errors
from server.services.paging import open_page, take_page
from server.validate import Violations

DEFAULT_PAGE = 1_000
MOST_PAGE = 5_000
MOST_STEPS = 1_000

_UP = (pb.GRAPH_DIRECTION_UNSPECIFIED, pb.GRAPH_DIRECTION_PREREQUISITES, pb.GRAPH_DIRECTION_BOTH)
_DOWN = (pb.GRAPH_DIRECTION_DEPENDENTS, pb.GRAPH_DIRECTION_BOTH)


def concept_graph(request: pb.GetConceptGraphRequest, catalog: Catalog) -> pb.GetConceptGraphResponse:
    """A page of the graph. Raises InvalidRequest, InvalidPageToken, ConceptNotFound.

    Concepts come by depth, then id, so that pages follow each other also when the catalogue changes in between.
    """
    check = Violations()
    size = check.page_size("page_size", request.page_size, default=DEFAULT_PAGE, most=MOST_PAGE)
    check_graph_request(check, request)
    check.check()
    filters = (request.root_concept_id, request.direction, request.max_steps, request.area)
    page = open_page(request.page_token, size, "GetConceptGraph", *filters)
    rows = _rows(request, catalog)
    following = sorted((key, row) for row in rows.tolist() if (key := _key(catalog, row)) > page.after)
    messages = (node(catalog, row) for _, row in following)
    nodes, token = take_page(page, messages, lambda node: _key(catalog, catalog.concept_row[node.concept_id]))
    return pb.GetConceptGraphResponse(nodes=nodes, next_page_token=token, catalog_version=catalog.version)


def check_graph_request(check: Violations, request: pb.GetConceptGraphRequest) -> None:
    """Note what is wrong with the root and how to walk from it."""
    check.identifier("root_concept_id", request.root_concept_id, required=False)
    check.enum("direction", request.direction, pb.GraphDirection)
    check.text("area", request.area, most=convert.MOST_NAME)
    check.whole("max_steps", request.max_steps, least=0, most=MOST_STEPS)
    if not request.root_concept_id:
        for name in ("direction", "max_steps"):
            if getattr(request, name):
                check.add(name, "must not be set without root_concept_id")


def node(catalog: Catalog, row: int) -> pb.ConceptNode:
    """A concept's place in the graph."""
    return pb.ConceptNode(
        concept_id=catalog.concept_ids[row],
        title=catalog.titles[row],
        topic=catalog.topics[catalog.topic_code[row]],
        area=catalog.areas[catalog.area_code[row]],
        importance=float(catalog.importance[row]),
        depth=int(catalog.depth[row]),
        prerequisites=[convert.prerequisite_message(edge) for edge in _edges(catalog, row)],
        questions_count=len(catalog.concept_questions.of(row)),
        dependents_count=int(catalog.dependents.offsets[row + 1] - catalog.dependents.offsets[row]),
    )


def _edges(catalog: Catalog, row: int) -> Iterator[Prerequisite]:
    needs = catalog.prerequisites
    for edge in range(needs.offsets[row], needs.offsets[row + 1]):
        # The weight is held in 32 bits: six digits give back what the catalogue was told.
        weight = round(float(needs.weight[edge]), 6)
        yield Prerequisite(catalog.concept_ids[needs.rows[edge]], bool(needs.hard[edge]), weight)


def _rows(request: pb.GetConceptGraphRequest, catalog: Catalog) -> I8:
    """Rows that the request asks for, in no order."""
    wanted = catalog.concept_active == 1
    if request.root_concept_id:
        root = catalog.concept_row.get(request.root_concept_id)
        if root is None:
            raise errors.ConceptNotFound(concept_id=request.root_concept_id)
        near = np.zeros_like(wanted)
        steps = request.max_steps or NO_ROW
        if request.direction in _UP:
            near[reach(catalog.prerequisites, root, depth=steps)[0]] = True
        if request.direction in _DOWN:
            near[reach(catalog.dependents, root, depth=steps)[0]] = True
        wanted &= near
    if request.area:
        wanted &= catalog.area_code == (
            catalog.areas.index(request.area) if request.area in catalog.areas else -1
        )
    return np.flatnonzero(wanted)


def _key(catalog: Catalog, row: int) -> str:
    return f"{catalog.depth[row]:08d}{catalog.concept_ids[row]}"
