"""The bundled curriculum, from counting to quadratic equations, as import rows. Knows no catalogue."""

import csv
from dataclasses import dataclass
from importlib.resources import files

Row = dict[str, str]
"""One line of an import file: column name to text, empty where nothing was said."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Concepts and questions in the columns of the import format, in a teachable order."""

    concepts: tuple[Row, ...]
    """concept_id, title, topic, area, prerequisite_ids, soft_prerequisite_ids (`;` between), typical_seconds,
    description. A concept comes after everything it builds on."""
    questions: tuple[Row, ...]
    """question_id, concept_ids (`;` between, the main one first), difficulty (0 to 1), text, tags (`;`
    between), expected_seconds. Questions of a concept stand together, easiest first."""


def load_curriculum() -> Curriculum:
    """Read the curriculum that ships with the package."""
    return Curriculum(concepts=_rows("concepts.csv"), questions=_rows("questions.csv"))


def split_ids(cell: str) -> list[str]:
    """Split a cell that holds several ids with `;` between them; an empty cell holds none."""
    return [part for part in cell.split(";") if part]


def _rows(name: str) -> tuple[Row, ...]:
    text = files("server.demo").joinpath("curriculum", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
