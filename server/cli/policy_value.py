"""`genie policy-value`: what another policy would have earned, from what was shown. Estimates nothing itself."""

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from engine.off_policy import Estimate
from server.assembly import policies_of
from server.cli.data import CONSOLE, EXIT_PROBLEM, data_options, data_settings, fail, opened, print_json
from server.cli.settings import refuse
from server.config import ConfigurationError
from server.policy_value import REWARDS, PolicyValue, Servings, policy_value


@click.command(name="policy-value")
@click.argument("policy")
@click.option(
    "--reward",
    type=click.Choice(REWARDS),
    default="taken",
    show_default=True,
    help="What counts as 1: clicked, started, completed or answered; completed or answered; answered right.",
)
@click.option(
    "--settled-minutes",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    help="Leave out slates younger than this: they may still be taken up.",
)
@data_options
def command(
    policy: str,
    reward: str,
    settled_minutes: float,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Estimate what POLICY would have earned, from slates that other policies made.

    The value is the share of slates whose first question earned the reward. POLICY is built in or named in the policies
    file, and nobody need have seen it. The server may be running. Exit code 1: nothing can be estimated, or a warning
    says not to rely on it.
    """
    settings = data_settings(config_file, data_directory)
    try:
        policies = policies_of(settings)
    except ConfigurationError as error:
        refuse(error)
    if policy not in policies:
        fail(f"there is no policy {policy!r}; there are {', '.join(sorted(policies))}")
    with opened(settings) as stores, CONSOLE.status("") as status:
        found = policy_value(
            stores,
            tenant,
            policies[policy],
            policies=policies,
            serving=Servings(stores, tenant, settings.data_directory).of,
            now=time.time(),
            reward=reward,
            settled_seconds=60.0 * settled_minutes,
            progress=lambda slates: status.update(f"{slates:,} slates"),
        )
    if as_json:
        print_json(_plain(found))
    else:
        _tell(found)
    if found.warnings:
        sys.exit(EXIT_PROBLEM)


def _plain(found: PolicyValue) -> dict[str, Any]:
    estimates = {
        name: None
        if estimate is None
        else {**estimate._asdict(), "few": estimate.few, "uncovered": estimate.uncovered}
        for name, estimate in _estimates(found).items()
    }
    return {
        "policy": found.policy,
        "reward": found.reward,
        "learners": found.learners,
        "slates": found.slates,
        "logged": found.logged,
        **estimates,
        "warnings": found.warnings,
    }


def _estimates(found: PolicyValue) -> dict[str, Estimate | None]:
    return {
        "as_logged": found.as_logged,
        "self_normalised": found.self_normalised,
        "doubly_robust": found.doubly_robust,
    }


def _tell(found: PolicyValue) -> None:
    tally = found.slates
    behind = ", ".join(f"{name} {count:,}" for name, count in sorted(found.logged.items()))
    click.echo(f"{tally.used:,} slates of {found.learners:,} learners: {behind or 'none'}")
    for count, why in (
        (tally.unsettled, "are too young"),
        (tally.empty, "held nothing"),
        (tally.unknown_policy, "are of a policy that is not configured any more"),
        (tally.unknown_model, "are of a model version that is gone"),
        (tally.not_rebuilt, "cannot be rebuilt: what they were made from is not known any more"),
    ):
        if count:
            click.echo(f"left out: {count:,} {why}")
    table = Table("value of the first question", f"{found.reward}", "95 % interval", "effective learners")
    names = {
        "as_logged": "as it was logged",
        "self_normalised": f"{found.policy}, self-normalised",
        "doubly_robust": f"{found.policy}, doubly robust",
    }
    for key, estimate in _estimates(found).items():
        if estimate is not None and np.isfinite(estimate.value):
            interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
            table.add_row(names[key], f"{estimate.value:.3f}", interval, f"{estimate.effective_size:.0f}")
    if table.row_count:
        Console().print(table)
    for warning in found.warnings:
        click.echo(f"careful: {warning}", err=True)
