"""`genie recommend`: ask a server what a learner should do next, and show it as a table. Decides nothing itself."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from genie.v1 import explanation_pb2, recommendation_service_pb2_grpc
from genie.v1 import recommendation_service_pb2 as pb
from server.cli.client import client_options, connection, follow_up, metadata, print_message

_SHORTFALLS = {
    pb.SHORTFALL_REASON_EMPTY_CATALOG: "the catalogue holds no questions",
    pb.SHORTFALL_REASON_EXCLUDED: "the others that are open to the learner were excluded, just answered right or "
    "just dismissed",
    pb.SHORTFALL_REASON_FEW_ELIGIBLE: "no more are open to the learner",
    pb.SHORTFALL_REASON_PREREQUISITES_MISSING: "no concept is open to the learner: hard prerequisites are missing "
    "everywhere",
}
_DEGRADED = {
    pb.DEGRADED_REASON_TIME_BUDGET: "the server's time for the call ran out, and it answered with the best it had",
    pb.DEGRADED_REASON_MODEL_UNAVAILABLE: "a trained model could not be used, and priors stood in",
    pb.DEGRADED_REASON_NOT_STORED: "the list could not be written down: it cannot be explained later",
}


@click.command(name="recommend")
@click.argument("learner")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="Questions wanted.")
@click.option("--policy", default="", help="Policy to use; the server's default when not given.")
@click.option("--objective", default="", help="Concept to work towards; the learner's goal when not given.")
@click.option("--request-id", default="", help="Repeats with the same id get the same slate.")
@client_options
def command(
    learner: str,
    limit: int,
    policy: str,
    objective: str,
    request_id: str,
    target: str,
    tenant: str,
    timeout_seconds: float,
    tls_ca_file: Path | None,
    as_json: bool,
) -> None:
    """Ask a server what LEARNER should practise next."""
    request = pb.RecommendRequest(
        learner_id=learner,
        limit=limit,
        policy=policy,
        objective_concept_id=objective,
        request_id=request_id,
        explanation_level=explanation_pb2.EXPLANATION_LEVEL_SIMPLE,
    )
    with connection(target, tls_ca_file) as channel:
        stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
        reply = stub.Recommend(request, timeout=timeout_seconds, metadata=metadata(tenant))
    if as_json:
        print_message(reply)
        return
    slate = reply.recommendation
    console = Console()
    console.print(slate_table(slate))
    if slate.shortfall_reason:
        told = _SHORTFALLS.get(slate.shortfall_reason, pb.ShortfallReason.Name(slate.shortfall_reason))
        console.print(f"{len(slate.items)} of the {limit} wanted: {told}.")
    if slate.degraded:
        told = _DEGRADED.get(slate.degraded_reason, pb.DegradedReason.Name(slate.degraded_reason))
        console.print(f"Less good than usual: {told}.")
    if slate.items:
        why = follow_up(
            "explain", slate.recommendation_id, target=target, tenant=tenant, tls_ca_file=tls_ca_file
        )
        console.print(f"Why? {why}", soft_wrap=True, highlight=False, markup=False)


def slate_table(slate: pb.Recommendation) -> Table:
    """A slate as a table, one row a question."""
    table = Table(
        title=f"{slate.learner_id}: {slate.policy}, model {slate.model_version}", title_justify="left"
    )
    table.add_column("#", justify="right")
    table.add_column("question", overflow="fold")
    table.add_column("concepts", overflow="fold")
    table.add_column("chance", justify="right")
    table.add_column("score", justify="right")
    table.add_column("why", overflow="fold")
    for item in slate.items:
        table.add_row(
            str(item.rank),
            item.question_id,
            ", ".join(item.concept_ids),
            f"{item.predicted_success:.0%}",
            f"{item.score:.3f}",
            item.main_reason,
        )
    return table
