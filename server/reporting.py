"""Reports on every learner of a tenant as files: JSONL, a line a learner, and one HTML page. Changes no store."""

import os
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from genie.v1 import report_pb2
from server.message_json import json_line
from server.report_page import learner_section, report_page
from server.services.report_messages import learner_report, tenant_report
from server.services.reports import Period, TenantSums, every_learner
from server.tenants import Bundle
from store.api import Store
from store.home import sync_directory

PAGE_LEARNERS: Final = 1_000
"""Learners whose part is on the page: more than any teacher has, and no more than a browser likes."""

_TOLD_EVERY: Final = 100


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    report: report_pb2.TenantReport
    learners_on_page: int


def write_reports(
    store: Store,
    tenant: str,
    bundle: Bundle,
    period: Period,
    *,
    now: float,
    jsonl: Path,
    page: Path,
    title: str,
    labels: Set[tuple[str, str]] = frozenset(),
    page_learners: int = PAGE_LEARNERS,
    progress: Callable[[int], None] = lambda learners: None,
) -> Written:
    """Write the report on each learner with all of the labels to `jsonl`, and that on all of them to `page`.

    Each file appears under its name when it is complete. Learners are read one at a time while others may change: each
    is consistent. Memory grows with concepts and with the learners on the page only. Raises StoreError, OSError.
    """
    catalog = bundle.catalog
    titles = {concept_id: catalog.titles[row] for concept_id, row in catalog.concept_row.items()}
    sums = TenantSums.empty(bundle, period)
    sections: list[str] = []
    with appearing(jsonl) as lines:
        for facts in every_learner(store, tenant, bundle, now, period, labels):
            sums.add(facts, bundle)
            message = learner_report(facts, bundle, now)
            lines.write(json_line(message) + b"\n")
            if len(sections) < page_learners:
                sections.append(learner_section(message, titles))
            if sums.tally.learners % _TOLD_EVERY == 0:
                progress(sums.tally.learners)
    report = tenant_report(sums, bundle, now)
    with appearing(page) as file:
        _write(file, report_page(report, sections, title=title, shown=len(sections)))
    return Written(report, len(sections))


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when the body ended without an error, whole and synced."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(file: IO[bytes], pieces: Iterable[str]) -> None:
    for piece in pieces:
        file.write(piece.encode())
