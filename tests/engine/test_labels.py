"""Labels of rows: a shelf goes on telling the truth about itself, whatever is noted after it was taken."""

import numpy as np

from engine.labels import LABEL_HEAD, Labels, Shelf, all_noted


def told(sizes: dict[int, int], shelf: Shelf) -> dict[int, bytes]:
    """The ids that a shelf tells."""
    found = {}
    for row, start in enumerate(shelf.starts.tolist()):
        if start >= 0:
            size = int(shelf.data[start]) | int(shelf.data[start + 1]) << 8
            assert size == sizes[row]
            found[row] = shelf.data[start + LABEL_HEAD :][:size].tobytes()
    return found


def test_no_label_of_a_shelf_is_longer_than_it_says() -> None:
    rng = np.random.default_rng(1)
    rows = 400
    sizes = {row: int(size) for row, size in enumerate(rng.integers(1, 600, rows))}
    names = {row: bytes(rng.integers(97, 123, size).astype(np.uint8)) for row, size in sizes.items()}
    labels = Labels(rows)
    taken = [labels.shelf]
    for some in np.array_split(rng.permutation(rows), 60):
        taken.append(labels.holding(some.tolist(), lambda row: (names[row], b"tail")))
        assert all_noted(taken[-1].starts, some.astype(np.uint32).reshape(1, -1))
    for shelf in taken:
        known = told(sizes, shelf)
        assert all(name == names[row] for row, name in known.items())
        assert all(LABEL_HEAD + len(name) + len(b"tail") <= shelf.longest for name in known.values())
    assert len(told(sizes, taken[-1])) == rows
