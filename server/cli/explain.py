"""`genie explain`: ask a server why it recommended something, and show it in sentences and a table."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from genie.v1 import explanation_pb2, recommendation_service_pb2_grpc
from genie.v1 import recommendation_service_pb2 as pb
from server.cli.client import LEVELS, client_options, connection, metadata, print_message


@click.command(name="explain")
@click.argument("recommendation")
@click.argument("question", required=False, default="")
@click.option(
    "--level", type=click.Choice(LEVELS), default="detailed", show_default=True, help="How much to tell."
)
@client_options
def command(
    recommendation: str,
    question: str,
    level: str,
    target: str,
    tenant: str,
    timeout_seconds: float,
    tls_ca_file: Path | None,
    as_json: bool,
) -> None:
    """Ask a server why QUESTION (the first when not given) is in RECOMMENDATION, the id of a slate."""
    request = pb.ExplainRecommendationRequest(
        recommendation_id=recommendation,
        question_id=question,
        level=explanation_pb2.ExplanationLevel.Value(f"EXPLANATION_LEVEL_{level.upper()}"),
    )
    with connection(target, tls_ca_file) as channel:
        stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
        reply = stub.ExplainRecommendation(request, timeout=timeout_seconds, metadata=metadata(tenant))
    if as_json:
        print_message(reply)
        return
    _show(Console(), reply)


def _show(console: Console, reply: pb.ExplainRecommendationResponse) -> None:
    found = reply.explanation
    console.print(f"Why {found.question_id} for {reply.learner_id}?")
    for sentence in found.main_reasons:
        console.print(f"  - {sentence}")
    shares = sorted(found.feature_importance.items(), key=lambda pair: -pair[1])
    console.print("Importance: " + ", ".join(f"{name} {share:.0%}" for name, share in shares))
    sure = found.confidence_factors
    console.print(
        f"Confidence: ranking {sure.algorithm_confidence:.2f}, data {sure.data_quality:.2f}, "
        f"personal {sure.personalization_strength:.2f}"
    )
    if found.terms:
        console.print(terms_table(found))
        console.print(found.counterfactual)
    if found.HasField("technical_details"):
        told = found.technical_details
        counts = ", ".join(
            f"{explanation_pb2.CandidateSource.Name(entry.source).removeprefix('CANDIDATE_SOURCE_').lower()} "
            f"{entry.candidates_count}"
            for entry in told.source_counts
        )
        console.print(
            f"Policy {told.policy}, model {told.model_version}, catalogue {told.catalog_version}; "
            f"{told.candidates_count} candidates ({counts}); propensity {told.propensity:.4f} "
            f"at temperature {told.temperature:g}, seed {told.random_seed}; "
            f"made by the call {told.correlation_id}"
        )


def terms_table(found: explanation_pb2.Explanation) -> Table:
    """The terms of a score, which they add up to."""
    table = Table(show_footer=True)
    total = sum(term.contribution for term in found.terms)
    table.add_column("term", footer="score")
    table.add_column("value", justify="right")
    table.add_column("weight", justify="right")
    table.add_column("contribution", justify="right", footer=f"{total:.4f}")
    table.add_column("average", justify="right")
    table.add_column("facts", overflow="fold")
    for term in found.terms:
        facts = ", ".join(f"{name} {value}" for name, value in sorted(term.facts.items()))
        table.add_row(
            term.name,
            f"{term.value:.3f}",
            f"{term.weight:+.3f}",
            f"{term.contribution:+.4f}",
            f"{term.average_contribution:+.4f}",
            facts,
        )
    return table
