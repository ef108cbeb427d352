"""All that kernels read of a catalogue and its models, behind one reference. Computes nothing.

On every call numba takes an argument apart, array by array: for the sixty arrays of a catalogue 10 µs, 17 when they
are cold. Behind a reference that is done once a catalogue.
"""

from typing import TYPE_CHECKING

from engine.jit import kernel

if TYPE_CHECKING:
    from typing import NamedTuple

    from engine.guide import Guide
    from engine.learner.score import QuestionConcepts, Weights
    from engine.probing import InvertedLists
    from engine.serving import ConceptArrays, QuestionArrays
    from engine.types import F4

    class Bound(NamedTuple):
        """What `bind` was given; kernels read its fields, Python does not."""

        concepts: ConceptArrays
        questions: QuestionArrays
        weights: Weights
        own_concepts: QuestionConcepts
        peers: Guide
        gram: F4
        """(64, 64) of the collaborative model."""
        lists: InvertedLists
        """What is near which place among the collaborative factors."""
        probes: int
        """How many of the lists are looked at."""

else:
    from numba.core import types
    from numba.experimental import structref

    @structref.register
    class _BoundType(types.StructRef):
        def preprocess_fields(self, fields):
            return tuple((name, types.unliteral(kind)) for name, kind in fields)

    class Bound(structref.StructRefProxy):
        """What `bind` was given, held by reference."""

    structref.define_proxy(
        Bound,
        _BoundType,
        ["concepts", "questions", "weights", "own_concepts", "peers", "gram", "lists", "probes"],
    )


@kernel
def bind(
    concepts: "ConceptArrays",
    questions: "QuestionArrays",
    weights: "Weights",
    own_concepts: "QuestionConcepts",
    peers: "Guide",
    gram: "F4",
    lists: "InvertedLists",
    probes: int,
) -> Bound:
    """Return everything behind one reference, which keeps the arrays alive."""
    return Bound(concepts, questions, weights, own_concepts, peers, gram, lists, probes)
