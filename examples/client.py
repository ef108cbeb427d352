"""A caller in one page: ask what to practise, answer, ask again, and ask why.

    python -m examples.client [--target 127.0.0.1:50051] [--learner LEARNER]

Run it against `make run`, or against any server that holds a catalogue. Needs the stubs (protos/ on the path: an
editable install puts them there) and grpcio; nothing else of Genie.
"""

import argparse
import uuid

import grpc
from google.protobuf.duration_pb2 import Duration

from examples.retry import channel
from genie.v1 import (
    explanation_pb2,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import recommendation_service_pb2 as recommendation_pb2

TIMEOUT_SECONDS = 5.0


def show(recommendation: recommendation_pb2.Recommendation) -> None:
    """Print a slate, one line a question."""
    for item in recommendation.items:
        print(f"  {item.rank}. {item.question_id:<28} {item.predicted_success:4.0%}  {item.main_reason}")


def main() -> None:
    """Hold the conversation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="127.0.0.1:50051", help="host:port of the server")
    parser.add_argument(
        "--learner", default="example-learner", help="any id: unknown learners start from nothing"
    )
    options = parser.parse_args()
    with channel(options.target) as connection:
        recommendations = recommendation_service_pb2_grpc.RecommendationServiceStub(connection)
        practice = practice_service_pb2_grpc.PracticeServiceStub(connection)
        request = recommendation_pb2.RecommendRequest(
            learner_id=options.learner, request_id=uuid.uuid4().hex, limit=5
        )
        before = recommendations.Recommend(request, timeout=TIMEOUT_SECONDS).recommendation
        print(
            f"What should {options.learner} practise?  (policy {before.policy}, model {before.model_version})"
        )
        show(before)
        if not before.items:
            print("  nothing: the catalogue is empty; see `genie import --help`")
            return
        first = before.items[0].question_id
        # The id makes a repeat harmless: send the same answer twice, and it counts once.
        answer = practice_service_pb2.Answer(
            answer_id=uuid.uuid4().hex,
            learner_id=options.learner,
            question_id=first,
            correct=False,
            duration=Duration(seconds=20),
            recommendation_id=before.recommendation_id,
        )
        recorded = practice.RecordAnswers(
            practice_service_pb2.RecordAnswersRequest(answers=[answer]), timeout=TIMEOUT_SECONDS
        ).results[0]
        print(f"\nA wrong answer to {first}:")
        for change in recorded.mastery_changes:
            print(
                f"  mastery of {change.concept_id}: {change.mastery_before:.2f} -> {change.mastery_after:.2f}"
            )
        request.request_id = uuid.uuid4().hex
        after = recommendations.Recommend(request, timeout=TIMEOUT_SECONDS).recommendation
        print("\nAnd now?")
        show(after)
        why = recommendations.ExplainRecommendation(
            recommendation_pb2.ExplainRecommendationRequest(
                recommendation_id=after.recommendation_id, level=explanation_pb2.EXPLANATION_LEVEL_DETAILED
            ),
            timeout=TIMEOUT_SECONDS,
        ).explanation
        print(f"\nWhy {why.question_id}?")
        for sentence in why.main_reasons:
            print(f"  - {sentence}")
        print(f"  {why.counterfactual}")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        raise SystemExit(f"{error.code().name}: {error.details()}") from None
