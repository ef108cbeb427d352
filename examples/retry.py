"""The retry policy that every caller of Genie should use, as a gRPC service config. Makes channels, no calls.

Every mutation of Genie is idempotent by an id the caller chose, so repeating a call whose fate is unknown (the worker
was killed, the connection was closed by a rolling restart) can never do anything twice. gRPC repeats it by itself:

* UNAVAILABLE: the worker or the connection went away, the server is draining, or the store cannot be written now;
* CANCELLED: gRPC's server says so to a call that reaches a worker in the moment it stops (grpc/grpc issue 41785); a
  caller's own cancellation is never repeated;
* at most five attempts, 50 ms, 100 ms, 200 ms, 400 ms apart (with gRPC's own jitter), and a lost connection is opened
  again after 50 ms instead of a second, so that the attempts are not used up on it.

RESOURCE_EXHAUSTED is not repeated at once: the server is shedding load, and its RetryInfo says when to come back.
"""

import json
from collections.abc import Sequence

import grpc

RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}

SERVICES = (
    "CatalogService",
    "LearnerService",
    "PracticeService",
    "RecommendationService",
    "AnalyticsService",
    "ExperimentService",
)

SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": f"genie.v1.{service}"} for service in SERVICES],
                "retryPolicy": RETRY_POLICY,
            }
        ]
    }
)


def channel(
    target: str, *, own_connection: bool = False, options: Sequence[tuple[str, object]] = ()
) -> grpc.Channel:
    """A channel to `target` ("host:port") with the standard retry policy.

    A server with several workers spreads connections, not calls: `own_connection` keeps this channel from sharing its
    connection with the process's other channels, so that several of them reach several workers.
    """
    settings: list[tuple[str, object]] = [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
    ]
    if own_connection:
        settings.append(("grpc.use_local_subchannel_pool", 1))
    return grpc.insecure_channel(target, options=[*settings, *options])
