"""A worker's talk with the experiment service: asks for news, delivers what is spooled. Decides nothing.

The one thread here is the only place of the recommender that waits for the service.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import experiment_service_pb2_grpc
from server.admission import Throttle
from server.experiments.snapshot import Snapshot, still_active
from server.experiments.spool import Segment, Spool
from server.logs import log
from server.rpc import CORRELATION_HEADER, TENANT_HEADER

POLL_SECONDS = 1.0
DELIVER_SECONDS = 0.2
MOST_BACKOFF_SECONDS = 5.0
CALL_SECONDS = 10.0
DELIVERY_SECONDS = 60.0
"""For a segment: what was committed before a deadline is quickly passed over the next time."""
LAST_DELIVERY_SECONDS = 2.0
"""How long a worker that stops tries to deliver what it has; the rest stays on disk."""

_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""Answers that would be the same the next time; after any other, the service is taken to be away."""
_STATES = (resources.EXPERIMENT_STATE_RUNNING, resources.EXPERIMENT_STATE_ROLLED_BACK)
_LOG = logging.getLogger("genie.experiments")


class Link:
    """The thread that talks. `start` it once, `close` it once."""

    def __init__(self, address: str, snapshot: Snapshot, spool: Spool) -> None:
        """Talk with the service at host:port."""
        self._address = address
        self._snapshot = snapshot
        self._spool = spool
        self._stop = threading.Event()
        self._away = False
        self._refused = Throttle(interval_seconds=10.0)
        self._thread = threading.Thread(target=self._run, name="experiments-link", daemon=True)

    def start(self) -> None:
        """Begin to talk."""
        self._thread.start()

    def close(self) -> None:
        """Deliver once more, and stop."""
        self._stop.set()
        self._thread.join(LAST_DELIVERY_SECONDS)

    def _run(self) -> None:
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1_000)]
        with grpc.insecure_channel(self._address, options) as channel:
            stub = experiment_service_pb2_grpc.ExperimentServiceStub(channel)
            next_poll, pause = 0.0, DELIVER_SECONDS
            while not self._stop.wait(pause):
                try:
                    if time.monotonic() >= next_poll:
                        self._ask(stub, self._snapshot.turn())
                        next_poll = time.monotonic() + POLL_SECONDS
                    self._ask(stub, self._snapshot.strangers())
                    self._deliver(stub, DELIVERY_SECONDS)
                except grpc.RpcError as error:
                    self._spool.rotate(only_large=True)
                    self._spool.measure()
                    pause = min(2.0 * pause, MOST_BACKOFF_SECONDS)
                    self._say_away(True, error)
                except Exception:
                    pause = MOST_BACKOFF_SECONDS
                    _LOG.exception("talking with the experiment service failed")
                else:
                    pause = DELIVER_SECONDS
                    self._say_away(False, None)
            try:
                self._deliver(stub, LAST_DELIVERY_SECONDS)
            except grpc.RpcError:
                return

    def _say_away(self, away: bool, error: "grpc.RpcError | None") -> None:
        if away != self._away:
            self._away = away
            event = "the experiment service is away" if away else "the experiment service answers"
            code: Any = error
            log(
                _LOG,
                logging.WARNING if away else logging.INFO,
                event,
                code=code.code().name if code else "OK",
            )

    def _ask(self, stub: Any, tenants: Iterable[str]) -> None:
        """Ask which experiments decide what the learners of these tenants get."""
        for tenant in tenants:
            found: list[resources.Experiment] = []
            for state in _STATES:
                request = pb.ListExperimentsRequest(state=state, page_size=1_000)
                while True:
                    page = stub.ListExperiments(
                        request, timeout=CALL_SECONDS, metadata=((TENANT_HEADER, tenant),)
                    )
                    found += [experiment for experiment in page.experiments if still_active(experiment)]
                    request.page_token = page.next_page_token
                    if not page.next_page_token:
                        break
            self._snapshot.update(tenant, found)

    def _deliver(self, stub: Any, seconds: float) -> None:
        """Deliver every segment that nobody writes. Raises grpc.RpcError when the service is away."""
        self._spool.rotate()
        for path in self._spool.waiting():
            with self._spool.open(path) as segment:
                if segment is not None:
                    self._send(stub, segment, seconds)

    def _send(self, stub: Any, segment: Segment, seconds: float) -> None:
        # Both sides log a delivery under the segment's name, its reports under the calls that caused them.
        correlation_id = segment.path.stem
        for tenant in dict.fromkeys(tenant for tenant, _ in segment.batches):
            metadata = ((TENANT_HEADER, tenant), (CORRELATION_HEADER, correlation_id))
            try:
                reply = stub.ReportMetrics(_requests(segment, tenant), timeout=seconds, metadata=metadata)
            except grpc.RpcError as error:
                answer: Any = error
                if answer.code() not in _REFUSALS:
                    raise
                log(
                    _LOG,
                    logging.ERROR,
                    "reports were refused",
                    tenant=tenant,
                    correlation_id=correlation_id,
                    error=answer.details(),
                )
                segment.refused = True
                return
            if reply.rejected_count and self._refused.passes():
                log(
                    _LOG,
                    logging.WARNING,
                    "some reports were refused",
                    tenant=tenant,
                    correlation_id=reply.errors[0].correlation_id,
                    reports=reply.rejected_count,
                    error=reply.errors[0].error.message,
                )
        segment.delivered = True


def _requests(segment: Segment, tenant: str) -> Iterator[pb.ReportMetricsRequest]:
    """A tenant's batches as messages."""
    for owner, batch in segment.batches:
        if owner == tenant:
            yield pb.ReportMetricsRequest.FromString(batch)
