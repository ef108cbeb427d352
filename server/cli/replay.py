"""`genie replay`: every learner's record worked out anew from the answer log, and compared. Knows no record."""

import sys
from pathlib import Path

import click

from server.cli.data import CONSOLE, EXIT_PROBLEM, data_options, data_settings, opened, print_json
from store.replay import LISTED, ReplayReport, replay


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

    The answers are the truth: a record must follow from them bit for bit. The server may be running. Exit code 1: some
    records differ (with --write: differed, and were stored anew).
    """
    settings = data_settings(config_file, data_directory)
    reports: dict[str, ReplayReport] = {}
    with opened(settings) as stores, CONSOLE.status("") as status:
        for name in stores.state.tenants() if all_tenants else [tenant]:

            def show(report: ReplayReport, name: str = name) -> None:
                status.update(f"{name}: {report.learners:,} learners, {report.answers:,} answers")

            reports[name] = replay(stores.state, name, write=not verify, progress=show)
    differing = sum(report.differing for report in reports.values())
    if as_json:
        print_json({"written": not verify, "tenants": reports})
    else:
        for name, report in reports.items():
            _tell(name, report, verify=verify)
    if differing:
        sys.exit(EXIT_PROBLEM)


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
