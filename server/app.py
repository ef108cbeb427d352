"""One worker's server: wires services to gRPC, starts, watches the store, drains. Knows no service by name."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server import direct, health, rpc
from server.admission import CallPool, Dispatcher, Drain, InlineQueue, RefusalPool, Route
from server.config import ConfigurationError, Settings
from server.logs import log
from server.metrics import CallCounters, Gauge, Meter, calls_of
from server.tracing import open_tracing

_LOG = logging.getLogger("genie.app")
_CONTROL_THREADS = 2
_MOST_WATCHES = 64
"""Callers who may watch the health at once, each with a thread."""
_BRIEF_THREADS = 2
"""Python computes on one thread at a time; more of them only take turns, which costs a fifth of a call. The second one
works while a kernel of the first computes."""
_CLOSE_SECONDS = 5.0
_MOST_CALLS_A_CONNECTION = 500
"""gRPC counts a call until nothing in the process refers to it any more, failed ones until the next collection: so it
is well above what is served at once."""
_SETTLE_SECONDS = 0.25
_LAST_WORD_SECONDS = 2.0
"""Time for those who watch the health to read the last status; who does not is cut off."""


def _nothing() -> None:
    """No work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What a worker serves, and how to look after it."""

    services: Sequence[tuple[ServiceDescriptor, object]]
    """Each service's descriptor and the object that serves it (see server.rpc)."""
    probe: Callable[[], None] = _nothing
    """Raises when the store cannot be written; called every `health_probe_seconds`."""
    brief: frozenset[str] = frozenset()
    """Full names of unary methods that compute and never wait for the disk: they have few threads, of their own."""
    close: Callable[[], None] = _nothing
    """Flushes and closes the store; called once, when no call is in flight any more."""
    meter: Meter = field(default_factory=Meter)
    """What the process counts in; closed after `close`."""


Assemble = Callable[[Settings, Drain], Assembly]
"""Opens the store and builds the services; the Drain tells background work of theirs to stop."""


class Genie:
    """A gRPC server over an assembly. `start` it once, `drain` it once."""

    def __init__(self, settings: Settings, assemble: Assemble) -> None:
        self._settings = settings
        self._unary = CallPool(
            threads=settings.threads,
            limit=settings.max_concurrent_calls,
            name="unary",
            queue_seconds=settings.max_queue_ms / 1e3,
        )
        self._server = grpc.server(self._unary, options=_options(settings))
        core = direct.core_of(self._server)
        seconds = settings.max_queue_ms / 1e3
        limit, threads = settings.max_concurrent_calls, min(_BRIEF_THREADS, settings.threads)
        self._brief: CallPool | InlineQueue
        if core is None:
            # grpc-python alone serves no call on the thread that polls.
            self._brief = CallPool(threads=threads, limit=limit, name="brief", queue_seconds=seconds)
        else:
            # Calls that wait for a catalogue leave room for those that do not.
            later = CallPool(threads=threads, limit=max(limit // 2, 1), name="brief")
            self._brief = InlineQueue(later, limit=limit, queue_seconds=seconds)
        self._streams = CallPool(threads=settings.max_streams, limit=settings.max_streams, name="stream")
        self._control = CallPool(
            threads=_CONTROL_THREADS, limit=settings.max_concurrent_calls, name="control"
        )
        self._watches = CallPool(threads=_MOST_WATCHES, limit=_MOST_WATCHES, name="watch")
        drain = Drain()
        self._assembly = assemble(settings, drain)
        self.runtime = rpc.Runtime(
            unary_pool=self._unary,
            stream_pool=self._streams,
            refusal_pool=RefusalPool(drain=drain),
            brief_pool=self._brief,
            brief=self._assembly.brief,
            counters=CallCounters(self._assembly.meter),
            drain=drain,
            access_log_ratio=settings.access_log_ratio,
            slow_call_seconds=settings.slow_call_ms / 1e3,
            tracing=open_tracing(settings),
        )
        names = [str(descriptor.full_name) for descriptor, _ in self._assembly.services]
        self.health = health.Health(names)
        self._direct = self._wire(names, core)
        self._measure(self._assembly.meter)
        self._probe_stop = threading.Event()
        self._probe_thread = threading.Thread(target=self._probe_store, name="health-probe", daemon=True)

    def start(self) -> int:
        """Listen and become SERVING; the port. Raises ConfigurationError when the address cannot be had."""
        port = self._listen()
        self._probe_once()
        self._server.start()
        if self._direct is not None:
            self._direct.start()
        self._assembly.meter.start()
        self._probe_thread.start()
        log(_LOG, logging.INFO, "started", address=f"{self._settings.host}:{port}")
        return port

    def drain(self, *, notice: bool) -> bool:
        """Finish the calls in flight, then close the store; True when none had to be cut off.

        With `notice`, health says NOT_SERVING for `drain_notice_seconds` before new calls are refused, for load
        balancers that look at it. A replaced worker needs none: another one answers on the same port.
        """
        settings = self._settings
        open_calls = self._unary.unfinished + self._brief.unfinished
        open_streams = self._streams.unfinished
        log(_LOG, logging.INFO, "draining", calls=open_calls, streams=open_streams)
        self.health.drain()
        if notice:
            self._probe_stop.wait(settings.drain_notice_seconds)
        self._probe_stop.set()
        self.runtime.drain.begin()
        if self._direct is not None:
            self._direct.settle(_SETTLE_SECONDS)
        stopped = self._server.stop(settings.drain_seconds)
        self.health.end_watches()
        if not stopped.wait(_LAST_WORD_SECONDS):
            self.health.cut_off_watches()
            stopped.wait(settings.drain_seconds + _CLOSE_SECONDS)
        if self._direct is not None:
            self._direct.close()
        unfinished = self._settled()
        self._assembly.close()
        if self.runtime.tracing is not None:
            self.runtime.tracing.close()
        for pool in (self._unary, self._brief, self._streams, self._control, self._watches):
            pool.shutdown(wait=False)
        self._assembly.meter.close()
        calls = sum(calls_of(self._assembly.meter.read_own().totals).values())
        log(_LOG, logging.INFO, "stopped", calls=round(calls), unfinished=unfinished)
        return unfinished == 0

    def _settled(self) -> int:
        """Calls that are left when gRPC has stopped, which it has a moment before the threads that served them."""
        limit = time.monotonic() + _SETTLE_SECONDS
        pools = (self._unary, self._brief, self._streams)
        while (left := sum(pool.unfinished for pool in pools)) and time.monotonic() < limit:
            time.sleep(0.005)
        return left

    def _measure(self, meter: Meter) -> None:
        """Have the pools and the health looked at."""
        serving = meter.gauge("genie_serving")
        meter.sample(lambda: serving.set(float(self.health.serving)))
        for name, pool in (("unary", self._unary), ("recommend", self._brief), ("stream", self._streams)):
            meter.gauge("genie_calls_limit", name).set(pool.limit)
            in_flight = meter.gauge("genie_calls_in_flight", name)
            meter.sample(_look_at(pool, in_flight, meter.gauge("genie_calls_queued", name)))

    def _wire(self, names: Sequence[str], core: Any | None) -> "direct.DirectCalls | None":
        """Have the server serve every method; those of one message each directly, where that can be done."""
        routes: dict[str, Route] = {}
        for descriptor, instance in self._assembly.services:
            routes.update(rpc.bind(descriptor, instance, self.runtime))
        if self._settings.reflection:
            service: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
            listed = [*names, health.SERVICE_NAME, service.full_name]
            routes.update(rpc.bind(service, _Reflection(listed), self.runtime))
        refusals = self.runtime.refusal_pool
        routes.update(self.health.routes(checks=self._control, watches=self._watches, refusals=refusals))
        self._server.add_generic_rpc_handlers((Dispatcher(routes),))
        if core is None:
            return None
        methods = [
            direct.DirectMethod(path, route.direct, route.pool, refusals)
            for path, route in routes.items()
            if route.direct is not None
        ]
        return direct.DirectCalls(core, methods)

    def _listen(self) -> int:
        settings = self._settings
        address = f"{_bracketed(settings.host)}:{settings.port}"
        credentials = _credentials(settings) if settings.tls_certificate_file else None
        try:
            if credentials is not None:
                port = self._server.add_secure_port(address, credentials)
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigurationError([f"host and port: cannot listen on {address}"]) from None
        if port == 0:
            raise ConfigurationError([f"host and port: cannot listen on {address}"])
        return port

    def _probe_store(self) -> None:
        while not self._probe_stop.wait(self._settings.health_probe_seconds):
            self._probe_once()

    def _probe_once(self) -> None:
        try:
            self._assembly.probe()
            if self._direct is not None and self._direct.ended:
                raise RuntimeError("the thread that takes calls has ended")
        except Exception:
            if self.health.serving or not self._probe_thread.is_alive():
                _LOG.exception("calls cannot be served as they should be: NOT_SERVING until they can")
            self.health.set_serving(False)
            return
        if self.health.set_serving(True):
            log(_LOG, logging.INFO, "SERVING")


class _Reflection:
    """Serves reflection through our own wrapper, so that its streams count as streams."""

    def __init__(self, names: Sequence[str]) -> None:
        self._servicer = reflection.ReflectionServicer(names)

    def server_reflection_info(
        self, requests: "rpc.Requests[reflection_pb2.ServerReflectionRequest]", call: rpc.Call
    ) -> Iterator[Any]:
        """Answer each question about the descriptors of the services; the library looks at no context."""
        yield from self._servicer.ServerReflectionInfo(iter(requests), cast("grpc.ServicerContext", call))


def _look_at(pool: CallPool | InlineQueue, in_flight: Gauge, queued: Gauge) -> Callable[[], None]:
    """What notes how full a pool is."""

    def look() -> None:
        unfinished = pool.unfinished
        in_flight.set(unfinished)
        queued.set(max(unfinished - pool.threads, 0))

    return look


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _options(settings: Settings) -> list[tuple[str, Any]]:
    """Settings as gRPC's channel arguments, whose times are whole milliseconds."""
    options: list[tuple[str, Any]] = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # A connection's further calls wait with their caller: what waits here costs memory, and a refusal its time.
        ("grpc.max_concurrent_streams", max(_MOST_CALLS_A_CONNECTION, 2 * settings.max_streams)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_client_ping_seconds)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(settings.min_client_ping_seconds)),
    ]
    if settings.keepalive_seconds > 0.0:
        options.append(("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)))
    if settings.max_connection_age_seconds > 0.0:
        options.append(("grpc.max_connection_age_ms", _ms(settings.max_connection_age_seconds)))
        options.append(("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_age_grace_seconds)))
    return options


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1e3))


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    chain = _read(settings.tls_certificate_file, "tls_certificate_file")
    key = _read(settings.tls_key_file, "tls_key_file")
    roots = _read(settings.tls_client_ca_file, "tls_client_ca_file") if settings.tls_client_ca_file else None
    _check_tls(settings)
    return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=roots is not None)


def _check_tls(settings: Settings) -> None:
    """Find the file that is wrong: gRPC says no more than that it cannot listen. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # How strong a key has to be is for gRPC to say.
    context.set_ciphers("ALL:@SECLEVEL=0")
    certificate, key, roots = (
        settings.tls_certificate_file,
        settings.tls_key_file,
        settings.tls_client_ca_file,
    )
    wrong = f"tls_certificate_file is {certificate}, which holds no certificate as PEM"
    try:
        context.load_verify_locations(certificate)
        wrong = f"tls_key_file is {key}, which holds no private key as PEM without a password"
        # Asked for a password, OpenSSL would wait for somebody to type it.
        context.load_cert_chain(certificate, key, password=lambda: "")
        wrong = f"tls_client_ca_file is {roots}, which holds no certificate as PEM"
        if roots:
            context.load_verify_locations(roots)
    except (OSError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            wrong = f"tls_key_file is {key}, which is not the key of the certificate in {certificate}"
        raise ConfigurationError([wrong]) from None


def _read(path: str, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{name} is {path}, which cannot be read: {error.strerror}"]) from None
