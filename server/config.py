"""The server's settings: one frozen record, checked once at start. Opens nothing that a setting names."""

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

ENVIRONMENT_PREFIX = "GENIE_"
NOT_SETTINGS = frozenset({"GENIE_CONFIG", "GENIE_DATA"})
"""Environment variables that are no settings: the configuration file, and where tests find real data."""

_DATA_DIRECTORY = Path(".genie")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class ConfigurationError(Exception):
    """Settings that cannot be used; `problems` holds a sentence for each of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _setting(
    default: Any,
    about: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of Settings with its help text and its closed range (or its choices)."""
    return field(default=default, metadata={"about": about, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the server. Units come last in a name; what "off" looks like, the help says."""

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 or [::] for every interface")
    port: int = _setting(50051, "TCP port to listen on; 0 lets the system choose one", least=0, most=65_535)
    workers: int = _setting(1, "Worker processes that share the port", least=1, most=256)
    data_directory: Path = _setting(
        _DATA_DIRECTORY, "Where answers, learners, the catalogue and models are kept"
    )
    store: str = _setting(
        "lmdb", "Where state lives: lmdb is durable, memory is forgotten at exit", choices=("lmdb", "memory")
    )
    threads: int = _setting(8, "Threads a worker uses for unary calls", least=1, most=256)
    max_concurrent_calls: int = _setting(
        128, "Unary calls a worker runs or queues before it refuses more", least=1, most=100_000
    )
    max_queue_ms: float = _setting(
        100.0, "Unary calls that would wait longer than this for a thread are refused", least=1, most=60_000
    )
    max_streams: int = _setting(
        32, "Streaming calls a worker serves at once; each holds a thread of its own", least=1, most=1_024
    )
    max_message_bytes: int = _setting(
        4_194_304, "Largest request message taken", least=65_536, most=268_435_456
    )
    keepalive_seconds: float = _setting(
        60.0, "Ping a connection that was silent this long; 0 never pings", least=0.0, most=86_400.0
    )
    keepalive_timeout_seconds: float = _setting(
        20.0, "Close a connection that does not answer the ping in this time", least=0.1, most=3_600.0
    )
    min_client_ping_seconds: float = _setting(
        10.0, "Clients that ping more often than this are disconnected", least=0.0, most=3_600.0
    )
    max_connection_age_seconds: float = _setting(
        0.0,
        "Ask clients to reconnect after this long, so that they spread; 0 never",
        least=0.0,
        most=864_000.0,
    )
    max_connection_age_grace_seconds: float = _setting(
        30.0, "Time for calls in flight when a connection reached its age", least=0.0, most=3_600.0
    )
    tls_certificate_file: str = _setting("", "PEM certificate chain; empty serves without TLS")
    tls_key_file: str = _setting("", "PEM private key of the certificate")
    tls_client_ca_file: str = _setting("", "PEM roots of client certificates; empty asks clients for none")
    reflection: bool = _setting(True, "Offer gRPC server reflection")
    default_policy: str = _setting("hybrid_v1", "Policy of a recommendation whose caller names none")
    policies_file: str = _setting(
        "", "TOML file with policies of your own, a table each; empty serves the built-in ones"
    )
    recommend_budget_ms: float = _setting(
        100.0, "Time after which a recommendation answers with the best it has", least=1.0, most=60_000.0
    )
    pool_cache_megabytes: float = _setting(
        96.0,
        "Memory for learners' scored candidates, kept between calls; 0 keeps none",
        least=0.0,
        most=65_536.0,
    )
    recommendation_hours: float = _setting(
        24.0, "How long a recommended slate is active", least=0.01, most=8_760.0
    )
    experiments: str = _setting(
        "alongside",
        "Where the experiment service is: started alongside, elsewhere at experiments_address, or off",
        choices=("alongside", "elsewhere", "off"),
    )
    experiments_address: str = _setting(
        "127.0.0.1:50052", "Where the experiment service listens and workers reach it, as host:port"
    )
    metrics_address: str = _setting(
        "", "Where Prometheus reads metrics, as host:port without authentication; empty serves none"
    )
    health_probe_seconds: float = _setting(
        5.0, "How often to check that the store can be written", least=0.1, most=3_600.0
    )
    drain_notice_seconds: float = _setting(
        0.0, "On shutdown, report NOT_SERVING this long before new calls are refused", least=0.0, most=300.0
    )
    drain_seconds: float = _setting(
        30.0, "On shutdown, time for calls in flight before they are cut off", least=0.0, most=3_600.0
    )
    start_seconds: float = _setting(
        300.0, "Time a worker may take to start before it counts as failed", least=1.0, most=3_600.0
    )
    hang_seconds: float = _setting(
        60.0,
        "Time without a sign of life until a worker is killed and replaced; 0 never",
        least=0.0,
        most=3_600.0,
    )
    log_level: str = _setting(
        "info", "Least severe lines to log", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "auto", "How log lines look; auto is text on a terminal, else json", choices=("auto", "json", "text")
    )
    access_log_ratio: float = _setting(
        1.0, "Share of successful calls to log; failed and slow calls always are", least=0.0, most=1.0
    )
    slow_call_ms: float = _setting(
        500.0, "Calls that take longer are logged as slow", least=0.0, most=3_600_000.0
    )
    tracing: str = _setting(
        "off",
        "OpenTelemetry traces: off, or otlp for the collector that OTEL_EXPORTER_OTLP_ENDPOINT names",
        choices=("off", "otlp"),
    )


class SettingInfo(NamedTuple):
    """What is known of one setting, for help texts and option parsers."""

    name: str
    kind: type
    default: Any
    about: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The command-line option that sets it."""
        return "--" + self.name.replace("_", "-")

    @property
    def bound(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            noun = "a whole number" if self.kind is int else "a number"
            return f"{noun} from {self.least:.12g} to {self.most:.12g}"
        return "a path" if self.kind is Path else "a text"


class Configuration(NamedTuple):
    """Checked settings and where each came from."""

    settings: Settings
    sources: Mapping[str, str]
    """Setting name → "default", "file PATH", "environment GENIE_X" or "option --x"."""
    warnings: tuple[str, ...]
    """Environment variables that look like settings but are none."""


def settings_info() -> tuple[SettingInfo, ...]:
    """All settings in the order of their definition."""
    return tuple(
        SettingInfo(
            name=item.name,
            kind=Path if isinstance(item.default, Path) else type(item.default),
            default=item.default,
            about=item.metadata["about"],
            least=item.metadata["least"],
            most=item.metadata["most"],
            choices=item.metadata["choices"],
        )
        for item in fields(Settings)
    )


def load(
    *,
    environment: Mapping[str, str],
    options: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Configuration:
    """Settings from defaults, `file`, `environment` and command-line `options` (name → text); the last wins.

    Without `file`, GENIE_CONFIG in the environment names it. Raises ConfigurationError with all problems.
    """
    known = {info.name: info for info in settings_info()}
    values: dict[str, Any] = {}
    sources = dict.fromkeys(known, "default")
    problems: list[str] = []

    def take(name: str, value: object, source: str) -> None:
        try:
            values[name] = _checked(known[name], value)
            sources[name] = source
        except ValueError as error:
            problems.append(f"{name} (from {source}) {error}")

    named = environment.get("GENIE_CONFIG")
    path = Path(named) if file is None and named else file
    if path is not None:
        for name, value in _read_file(path, problems).items():
            if name in known:
                take(name, value, f"file {path}")
            else:
                problems.append(f"{name} (from file {path}) is no setting{_nearest(name, known)}")
    for info in known.values():
        if info.variable in environment:
            take(info.name, environment[info.variable], f"environment {info.variable}")
    for name, text in (options or {}).items():
        take(name, text, f"option {known[name].option}")
    if not problems:
        settings = Settings(**values)
        problems = _conflicts(settings)
        if not problems:
            return Configuration(settings, sources, _stray_variables(environment, known))
    raise ConfigurationError(problems)


def _checked(info: SettingInfo, value: object) -> Any:
    """`value` as the setting's type, inside its bound; ValueError with the rest of a sentence otherwise."""
    wrong = ValueError(f"is {_shown(value)}; must be {info.bound}{_service_link_hint(info, value)}")
    if info.kind is bool:
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise wrong
        return word in _TRUE
    if info.kind in (int, float):
        whole_wanted = info.kind is int
        if isinstance(value, bool) or (whole_wanted and isinstance(value, float)):
            raise wrong
        # Python would take the digits of any script, and 1_0 for 10.
        if not isinstance(value, (int, float, str)) or (isinstance(value, str) and not _plain(value)):
            raise wrong
        try:
            number = int(value) if whole_wanted else float(value)
        except (ValueError, OverflowError):
            raise wrong from None
        if not (info.least or 0.0) <= number <= (info.most or math.inf):
            raise wrong
        return number
    if not isinstance(value, str) or "\0" in value or (info.kind is Path and not value):
        raise wrong
    if info.choices and value not in info.choices:
        raise wrong
    return Path(value) if info.kind is Path else value


def _plain(text: str) -> bool:
    """Whether a number is written as people expect."""
    return text.isascii() and "_" not in text


def _is_host(text: str) -> bool:
    """Whether a name or an address could be one: no part of it empty or too long."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65_535


def _conflicts(settings: Settings) -> list[str]:
    """Settings that cannot be together, and addresses that cannot be."""
    problems = []
    if bool(settings.tls_certificate_file) != bool(settings.tls_key_file):
        given, missing = ("tls_certificate_file", "tls_key_file")
        if settings.tls_key_file:
            given, missing = missing, given
        problems.append(f"{given} is set but {missing} is not; TLS needs both")
    if settings.tls_client_ca_file and not settings.tls_certificate_file:
        problems.append("tls_client_ca_file is set but tls_certificate_file is not; that needs TLS")
    if settings.store == "memory" and settings.workers > 1:
        problems.append(
            f"store is memory and workers is {settings.workers}; processes cannot share a store in memory: "
            "set workers to 1 or store to lmdb"
        )
    if not _is_host(settings.host):
        problems.append(f"host is {_shown(settings.host)}; must be an address or a name")
    for name, example in (("experiments_address", "127.0.0.1:50052"), ("metrics_address", "127.0.0.1:9464")):
        address = getattr(settings, name)
        host, _, port = address.rpartition(":")
        if (address or name != "metrics_address") and not (host and _is_host(host) and _is_port(port)):
            problems.append(f"{name} is {_shown(address)}; must be host:port, such as {example}")
    if 0.0 < settings.hang_seconds < 5.0:
        problems.append(
            f"hang_seconds is {settings.hang_seconds:g}; must be 0 or from 5 on: a worker is heard of once a second"
        )
    if settings.max_concurrent_calls < settings.threads:
        problems.append(
            f"max_concurrent_calls is {settings.max_concurrent_calls}, below threads, "
            f"which is {settings.threads}; some threads would never work"
        )
    return problems


def _read_file(path: Path, problems: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"configuration file {path} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problems.append(f"configuration file {path} is not valid TOML: {error}")
    return {}


def _stray_variables(environment: Mapping[str, str], known: Mapping[str, SettingInfo]) -> tuple[str, ...]:
    ours = {info.variable for info in known.values()} | NOT_SETTINGS
    return tuple(
        f"environment variable {name} is no setting{_nearest(name, ours)}"
        for name in sorted(environment)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in ours
    )


def _nearest(name: str, known: Mapping[str, object] | set[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _service_link_hint(info: SettingInfo, value: object) -> str:
    # Kubernetes sets GENIE_PORT=tcp://… in every pod beside a Service called "genie".
    if info.kind is int and isinstance(value, str) and value.startswith(("tcp://", "udp://")):
        return " (it looks like a Kubernetes service link; set enableServiceLinks: false on the pod)"
    return ""
