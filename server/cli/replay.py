"""`genie replay`: what is derived (records, counts) worked out anew from the log, and compared. Knows no record."""

import sys
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from server.cli.apart import apart
from server.cli.data import (
    CONSOLE,
    EXIT_PROBLEM,
    check_there,
    data_options,
    data_settings,
    print_json,
    told,
)
from store.api import StoreError
from store.recount import RecountReport, recount
from store.replay import LISTED, ReplayReport, replay
from store.stores import open_stores
from store.tallies import tally_name


@click.command(name="replay")
@click.option(
    "--verify/--write",
    "verify",
    default=True,
    help="Compare only (the default), or also store the records that differ.",
)
@click.option("--all-tenants", is_flag=True, help="Every tenant, not only --tenant.")
@data_options
def command(
    verify: bool,
    all_tenants: bool,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Rebuild learner records from the answers, and name those that differ from what is stored.

    The answers are the truth: a record must follow from them bit for bit, and so must the counts behind the system
    metrics. The server may be running. Exit code 1: something differs (with --write: differed, and was put right).
    """
    settings = data_settings(config_file, data_directory)
    with told():
        check_there(settings)
        try:
            reports, recounts = apart(
                _replayed, settings.data_directory, None if all_tenants else tenant, not verify
            )
        except StoreError as error:
            if as_json:
                print_json({"written": not verify, "error": str(error)})
            raise
    if as_json:
        print_json({"written": not verify, "tenants": reports, "counts": recounts})
    else:
        for name, report in reports.items():
            _tell(name, report, verify=verify)
            _tell_counts(name, recounts[name], verify=verify)
    if any(report.differing for report in reports.values()) or not all(r.agrees for r in recounts.values()):
        sys.exit(EXIT_PROBLEM)


def _replayed(
    directory: Path, tenant: str | None, write: bool
) -> tuple[dict[str, ReplayReport], dict[str, RecountReport]]:
    """What was found by tenant, of one or of all."""
    reports: dict[str, ReplayReport] = {}
    recounts: dict[str, RecountReport] = {}
    with closing(open_stores(directory)) as stores, CONSOLE.status("") as status:
        for name in stores.state.tenants() if tenant is None else [tenant]:

            def show(report: ReplayReport, name: str = name) -> None:
                status.update(f"{name}: {report.learners:,} learners, {report.answers:,} answers")

            reports[name] = replay(stores.state, name, write=write, progress=show)
            status.update(f"{name}: counting")
            recounts[name] = recount(stores.state, name, write=write)
    return reports, recounts


def _tell(tenant: str, report: ReplayReport, *, verify: bool) -> None:
    click.echo(
        f"{tenant}: {report.learners:,} learners, {report.answers:,} answers replayed, {report.differing:,} differ"
    )
    for learner_id in report.examples:
        click.echo(
            f"{tenant}: the record of {learner_id!r} {'differs' if verify else 'was stored anew'}", err=True
        )
    if report.differing > LISTED:
        click.echo(f"{tenant}: … and {report.differing - LISTED:,} more", err=True)


def _tell_counts(tenant: str, report: RecountReport, *, verify: bool) -> None:
    differing = sum(map(len, report.differing.values()))
    click.echo(f"{tenant}: {report.learners:,} learners recounted, {differing:,} counts differ")
    verb = "differs from what the log holds" if verify else "was put right"
    for day, cells in sorted(report.differing.items())[:LISTED]:
        date = np.datetime64(day, "D")
        for cell, amount in sorted(cells.items()):
            click.echo(
                f"{tenant}: the count of {tally_name(cell)} on {date} {verb} (by {amount:+,})", err=True
            )
    if report.sums_differ:
        click.echo(f"{tenant}: a sum over all days {verb}", err=True)
