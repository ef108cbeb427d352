"""Raw bytes on the port: whatever is sent, the server lives, says SERVING, and answers a good call.

Connections send garbage, other protocols, requests that break off, frames without sense, headers that are hostile or
endless, messages that lie about their length, floods, and nothing at all for as long as they can.

    python -m bench.fuzz [--quick] [--seconds 60] [--workers 2]
"""

import argparse
import contextlib
import json
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from bench.live import LiveServer
from bench.output import emit
from genie.v1 import recommendation_service_pb2 as recommendation_pb2
from genie.v1 import recommendation_service_pb2_grpc
from server.cli.client import HEALTH_CHECK

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RECOMMEND = "/genie.v1.RecommendationService/Recommend"
STREAM_ANSWERS = "/genie.v1.PracticeService/StreamAnswers"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 0x1, 0x4
EMPTY: Mapping[bytes, bytes] = {}
HEADER_NAMES = (
    *(b"x-correlation-id", b"x-tenant-id", b"grpc-timeout", b"grpc-encoding", b"content-type", b"user-agent"),
    *(b"x-trace-bin", b"grpc-trace-bin", b"grpc-tags-bin", b"te", b"host", b"Upper-Case"),
)
SOCKET_SECONDS = 2.0
ANSWER_SECONDS = 20.0
LORIS_SECONDS = 1.5
LORIS_STEP_SECONDS = 0.05

Attack = Callable[[random.Random, tuple[str, int]], None]


@contextlib.contextmanager
def connection(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A TCP connection; what goes wrong with it is the other side's good right."""
    with contextlib.suppress(OSError), socket.create_connection(address, SOCKET_SECONDS) as opened:
        opened.settimeout(SOCKET_SECONDS)
        yield opened


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes((kind & 0xFF, flags & 0xFF))
    return head + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header as a literal that is not indexed (RFC 7541, section 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        size += bytes((rest % 128 + 128,))
        rest //= 128
    return size + bytes((rest,)) + text


def request_headers(path: str = RECOMMEND, more: Mapping[bytes, bytes] = EMPTY) -> bytes:
    """The header block of a gRPC call; `more` are further headers, or others in their place."""
    wanted = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        **more,
    }
    return b"".join(header(name, value) for name, value in wanted.items())


def good_request(path: str = RECOMMEND, more: Mapping[bytes, bytes] = EMPTY) -> bytes:
    """All the bytes of one call, after the opening."""
    message = recommendation_pb2.RecommendRequest(learner_id="fuzz").SerializeToString()
    framed = b"\x00" + len(message).to_bytes(4, "big") + message
    head = frame(HEADERS, END_HEADERS, 1, request_headers(path, more))
    return head + frame(DATA, END_STREAM, 1, framed)


OPENING = PREFACE + frame(SETTINGS, 0, 0)


def exchange(
    address: tuple[str, int], *parts: bytes, linger: float = 0.05, until: bytes = b"grpc-status"
) -> bytes:
    """Send parts over one connection; what came back until it said `until`, or nothing for `linger` seconds."""
    received = b""
    with connection(address) as opened:
        for part in parts:
            opened.sendall(part)
        opened.settimeout(linger)
        with contextlib.suppress(OSError):
            while until not in received and (more := opened.recv(65_536)):
                received += more
    return received


def garbage(rng: random.Random, address: tuple[str, int]) -> None:
    """Bytes without any sense, whole or after the preface."""
    start = rng.choice((b"", PREFACE, OPENING))
    exchange(address, start, rng.randbytes(rng.randint(1, 5_000)))


def other_protocols(rng: random.Random, address: tuple[str, int]) -> None:
    """HTTP/1, TLS, a database, an upgrade."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500)
    web = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    exchange(address, rng.choice((hello, web, b"POST /" + b"a" * 70_000, b"*1\r\n$4\r\nPING\r\n", b"\0" * 9)))


def broken_off(rng: random.Random, address: tuple[str, int]) -> None:
    """A good call that ends too early, or with a byte changed."""
    good = OPENING + good_request()
    at = rng.randrange(len(good))
    cut = good[:at] if rng.random() < 0.5 else good[:at] + rng.randbytes(1) + good[at + 1 :]
    exchange(address, cut)


def random_frames(rng: random.Random, address: tuple[str, int]) -> None:
    """Frames of any kind, in any order, on any stream."""
    frames = []
    for _ in range(rng.randint(1, 60)):
        stream = rng.choice((0, 1, 2, 3, 2**31 - 1, 2**32 - 1))
        made = frame(
            rng.randint(0, 12), rng.randrange(256), stream, rng.randbytes(rng.choice((0, 4, 5, 8, 90)))
        )
        frames.append(made if rng.random() < 0.9 else rng.randbytes(3) + made[3:])
    exchange(address, OPENING, *frames)


def hostile_headers(rng: random.Random, address: tuple[str, int]) -> None:
    """Header values that are no text, no numbers, no paths, or endless."""
    nasty = (
        b"",
        b"\xff\xfe",
        b"\x80\x81",
        b"a\r\nb: c",
        b"\0",
        b"\x7f",
        b"x" * 9_000,
        b"%s%n",
        "é😀".encode(),
    )
    path = rng.choice((RECOMMEND, RECOMMEND, "", "/", "//", "/a/b", "/" + "x" * 9_000, RECOMMEND + "\0"))
    timeout = rng.choice((b"1S", b"0n", b"-1S", b"99999999999H", b"1", b"S", b"1e9S", b"1" * 500 + b"S"))
    more = {name: rng.choice(nasty) for name in rng.sample(HEADER_NAMES, rng.randint(1, 4))}
    if rng.random() < 0.5:
        more[b"grpc-timeout"] = timeout
    exchange(address, OPENING, good_request(path, more), linger=0.2)


def giant_headers(rng: random.Random, address: tuple[str, int]) -> None:
    """A header block that goes on over many frames."""
    block = request_headers() + b"".join(
        header(b"x-%d" % n, b"y" * 4_000) for n in range(rng.randint(5, 300))
    )
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    frames = [frame(HEADERS, 0, 1, pieces[0]), *(frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:])]
    exchange(address, OPENING, *frames, frame(CONTINUATION, END_HEADERS, 1, header(b"x", b"y")))


def lying_messages(rng: random.Random, address: tuple[str, int]) -> None:
    """Messages that are longer or shorter than they say, compressed without saying how, or none at all."""
    path = rng.choice((RECOMMEND, STREAM_ANSWERS))
    bodies = (
        b"\x00\xff\xff\xff\xff",
        b"\x00\x7f\xff\xff\xff" + b"x" * 100,
        b"\x01\x00\x00\x00\x04abcd",
        b"\x02\x00\x00\x00\x00",
        b"\x00\x00\x00",
        b"",
        b"\x00\x00\x00\x00\x00" * 50,
        b"\x00\x00\x00\x00\x02\xff\xff" * 50,
    )
    flags = rng.choice((0, END_STREAM))
    head = frame(HEADERS, END_HEADERS, 1, request_headers(path))
    exchange(address, OPENING, head, frame(DATA, flags, 1, rng.choice(bodies)))


def floods(rng: random.Random, address: tuple[str, int]) -> None:
    """Pings, settings, windows, calls that are reset at once, all many times."""
    calls = b"".join(
        frame(HEADERS, END_HEADERS, 2 * n + 1, request_headers(STREAM_ANSWERS))
        + frame(RST_STREAM, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(100)
    )
    flood = (
        frame(PING, 0, 0, b"12345678") * 500,
        frame(SETTINGS, 0, 0) * 500,
        frame(SETTINGS, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
        frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
        frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\0"),
        frame(PRIORITY, 0, 5, b"\0\0\0\x05\x10") * 500,
        frame(DATA, 0, 1, b"") * 500,
        calls,
    )
    exchange(address, OPENING, rng.choice(flood))


def vanishing_streams(rng: random.Random, address: tuple[str, int]) -> None:
    """Streams that are opened well and left alone by a connection that ends without a word."""
    with connection(address) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        for n in range(rng.randint(1, 8)):
            head = frame(HEADERS, END_HEADERS, 2 * n + 1, request_headers(STREAM_ANSWERS))
            opened.sendall((b"" if n else OPENING) + head + frame(DATA, 0, 2 * n + 1, b"\0\0\0\0\0"))
        time.sleep(rng.random() * 0.05)


def slow_loris(rng: random.Random, address: tuple[str, int]) -> None:
    """Connections that send a good call byte by byte, slower than anyone should wait for."""
    good = OPENING + good_request()
    end = time.monotonic() + LORIS_SECONDS
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        opened = [stack.enter_context(connection(address)) for _ in range(rng.randint(5, 30))]
        at = 0
        while time.monotonic() < end and at < len(good):
            for one in opened:
                one.sendall(good[at : at + 1])
            at += 1
            time.sleep(LORIS_STEP_SECONDS)


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        garbage,
        other_protocols,
        broken_off,
        random_frames,
        hostile_headers,
        giant_headers,
        lying_messages,
        floods,
        vanishing_streams,
        slow_loris,
    )
}


def complaint(target: str) -> str:
    """What is wrong with a server: it is not SERVING, or a good call fails. Empty when all is well."""
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        recommend = recommendation_service_pb2_grpc.RecommendationServiceStub(channel).Recommend
        try:
            health = check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
            recommend(recommendation_pb2.RecommendRequest(learner_id="good"), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            return f"{error.code()}: {error.details()}"
    return "" if health.status == health_pb2.HealthCheckResponse.SERVING else "not SERVING"


def run(server: LiveServer, *, seconds: float, threads: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Attack a server that is SERVING from several threads; (attacks made, complaints)."""
    made: Counter[str] = Counter()
    complaints: list[str] = []
    end = time.monotonic() + seconds

    def attack(number: int) -> None:
        rng = random.Random(seed * 1_000 + number)
        while time.monotonic() < end:
            name = rng.choice(list(ATTACKS))
            ATTACKS[name](rng, ("127.0.0.1", server.port))
            made[name] += 1

    crew = [threading.Thread(target=attack, args=(number,)) for number in range(threads)]
    for thread in crew:
        thread.start()
    workers = sorted(server.worker_pids())
    while time.monotonic() < end:
        time.sleep(0.5)
        if found := complaint(server.target):
            complaints.append(f"under attack: {found}")
    for thread in crew:
        thread.join()
    if found := complaint(server.target):
        complaints.append(f"afterwards: {found}")
    if sorted(server.worker_pids()) != workers:
        complaints.append(f"workers {workers} became {sorted(server.worker_pids())}")
    return made, complaints


def own_faults(text: str) -> list[str]:
    """The log's lines that tell of a fault of the server; gRPC logs headers that are no text as errors of its own."""
    faults = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry["level"] in ("error", "critical") and entry["logger"].startswith(
                ("genie", "grpc._server")
            ):
                faults.append(line)
    return faults


def main() -> int:
    """Run and report; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="5 seconds")
    options = parser.parse_args()
    seconds = 5.0 if options.quick else options.seconds
    with (
        tempfile.TemporaryDirectory(prefix="genie-fuzz-") as directory,
        LiveServer(Path(directory), workers=options.workers) as server,
    ):
        made, complaints = run(server, seconds=seconds, threads=options.threads, seed=options.seed)
        faults = own_faults(server.log_path.read_text(errors="replace"))
    for what in [*complaints[:10], *faults[:10]]:
        emit("fuzz", "complaint", 1, what=what[:2_000])
    facts = {"attacks": made.total(), **dict(sorted(made.items()))}
    held = emit("fuzz", "complaints", len(complaints), bar="== 0", **facts)
    return 0 if emit("fuzz", "faults_logged", len(faults), bar="== 0") and held else 1


if __name__ == "__main__":
    raise SystemExit(main())
