"""What traces cost a call that has four parts, in processor time: switched off, not sampled, and traced.

The spans go to an exporter that throws them away, from a thread of their own whose time counts. Says nothing of a
collector.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.output import emit
from server.tracing import Tracing, part

PARTS = ("store.find_slate", "store.read_learner", "engine.recommend", "store.write_slate")
HEADERS = (("user-agent", "bench"), ("x-tenant-id", "default"))
ROUNDS = 5


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Done."""
        return SpanExportResult.SUCCESS


def least_us(work: Callable[[], object], calls: int) -> float:
    """Processor time of one call in microseconds: the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - started) / calls * 1e6)
    return min(found)


def parts() -> None:
    """The parts of a call."""
    for name in PARTS:
        with part(name):
            pass


def traced_call(tracing: Tracing) -> Callable[[], None]:
    """A call with its parts, traced."""

    def call() -> None:
        span = tracing.begin(
            "/genie.v1.RecommendationService/Recommend", HEADERS, tenant="default", correlation_id="c-1"
        )
        parts()
        span.end("OK")

    return call


def main() -> int:
    """Measure; 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    calls = 2_000 if parser.parse_args().quick else 20_000
    held = [emit("tracing", "off_us_per_call", round(least_us(parts, calls), 3), bar="<= 5")]
    for metric, sampler in (
        ("not_sampled_us_per_call", sampling.ALWAYS_OFF),
        ("traced_us_per_call", sampling.ALWAYS_ON),
    ):
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        tracing = Tracing(provider)
        held.append(emit("tracing", metric, round(least_us(traced_call(tracing), calls), 3)))
        tracing.close()
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
