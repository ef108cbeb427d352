"""Prerequisites of concepts that are about to be stored: what is missing, what would close a cycle. Stores nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.graph import find_cycle
from engine.types import Concept
from server import errors
from store.api import Reader
from store.catalogs import get_concept


class Needs(Mapping[str, tuple[str, ...]]):
    """What each concept needs, by id: new concepts in front of those stored, which are read when asked for.

    Iterating goes over the new ones only: a cycle that was not there before leads through one of them.
    """

    def __init__(self, reader: Reader, concepts: Iterable[Concept]) -> None:
        self._reader = reader
        self._new = {c.concept_id: tuple(p.concept_id for p in c.prerequisites) for c in concepts}
        self._stored: dict[str, tuple[str, ...] | None] = {}

    def __getitem__(self, concept_id: str) -> tuple[str, ...]:
        """Ids that `concept_id` needs. Raises KeyError when it is neither new nor stored."""
        needs = self._new.get(concept_id)
        if needs is None:
            if concept_id not in self._stored:
                concept = get_concept(self._reader, concept_id)
                self._stored[concept_id] = (
                    None if concept is None else tuple(p.concept_id for p in concept.prerequisites)
                )
            needs = self._stored[concept_id]
        if needs is None:
            raise KeyError(concept_id)
        return needs

    def __iter__(self) -> Iterator[str]:
        """The new concepts, in the order given."""
        return iter(self._new)

    def __len__(self) -> int:
        """The number of new concepts."""
        return len(self._new)

    def is_new(self, concept_id: str) -> bool:
        """Whether it is one of the new concepts."""
        return concept_id in self._new


class Cut(NamedTuple):
    """A prerequisite left out because it would close a cycle."""

    concept_id: str
    prerequisite_id: str
    cycle: list[str]
    """As `cycle_text` takes it."""


def check_sound(reader: Reader, concepts: Sequence[Concept]) -> None:
    """See that the new concepts name only what there is, and close no cycle.

    Raises ConceptNotFound for the first that is missing, PrerequisiteCycle.
    """
    needs = Needs(reader, concepts)
    for concept in concepts:
        for needed in needs[concept.concept_id]:
            if needed not in needs:
                raise errors.ConceptNotFound(concept_id=needed)
    cycle = find_cycle(needs)
    if cycle is not None:
        raise errors.PrerequisiteCycle(cycle=cycle_text(cycle))


def cycle_text(cycle: Sequence[str]) -> str:
    """A cycle as errors tell it; `cycle` follows what needs what, the text puts each concept after what it needs."""
    return " > ".join(map(errors.printable, reversed(cycle)))


def cut_cycles(needs: Needs, check: Callable[[], object] = lambda: None) -> tuple[list[Cut], list[str]]:
    """Return (prerequisites of new concepts to leave out, the new concepts, each after what it needs).

    What is left holds no cycle, stored concepts included. One walk in depth, which backs up to the last new
    concept before a step that would close a cycle. `check` is called now and then, to stop long work.
    """
    cuts: list[Cut] = []
    order: list[str] = []
    done: set[str] = set()
    for start in needs:
        if start in done:
            continue
        check()
        path, pending, on_path = [start], [iter(needs[start])], {start}
        while path:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                leaving = path.pop()
                on_path.discard(leaving)
                done.add(leaving)
                if needs.is_new(leaving):
                    order.append(leaving)
            elif following in on_path:
                cycle = [*path[path.index(following) :], following]
                # What is stored has no cycle of its own, so a new concept lies on this one.
                last = max(i for i, concept_id in enumerate(path) if needs.is_new(concept_id))
                cuts.append(Cut(path[last], [*path, following][last + 1], cycle))
                on_path.difference_update(path[last + 1 :])
                del path[last + 1 :], pending[last + 1 :]
            elif following not in done:
                path.append(following)
                pending.append(iter(needs.get(following, ())))
                on_path.add(following)
    return cuts, order
