"""Generates the Python stubs of genie.v1 beside their .proto files. Knows nothing of what the messages mean.

python protos/generate.py            write the stubs
python protos/generate.py --check    write nothing; exit 1 and name the files that differ
python protos/generate.py --imports .cache/googleapis
                                     copy the imported google/*.proto there, where buf.yaml looks for them
"""

import argparse
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import google.api.annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("genie/v1")
IMPORT = re.compile(r'^import "(google/(?!protobuf/)[^"]+)";', re.MULTILINE)
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def include_folders() -> list[Path]:
    """Folders of the imported .proto files: google/protobuf, then google/api, google/rpc and google/type."""
    annotations = Path(google.api.annotations_pb2.__file__)
    return [Path(str(files("grpc_tools"))) / "_proto", annotations.parents[2]]


def run_protoc(sources: Sequence[Path], outputs: Sequence[str]) -> None:
    """Run protoc over files below ROOT with the given output options. Raises RuntimeError when it refuses them."""
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    folders = [f"-I{folder}" for folder in (ROOT, *include_folders())]
    status = protoc.main(
        ["protoc", *folders, *plugins, *outputs, *(str(ROOT / source) for source in sources)]
    )
    if status != 0:
        raise RuntimeError(f"protoc refused the sources (status {status})")


def generate(target: Path) -> None:
    """Write every stub below `target`. Files without a service get no gRPC stub."""
    sources = sorted(path.relative_to(ROOT) for path in (ROOT / PACKAGE).glob("*.proto"))
    services = [path for path in sources if re.search(r"^service ", (ROOT / path).read_text(), re.MULTILINE)]
    run_protoc(sources, [f"--python_out={target}", f"--mypy_out=quiet:{target}"])
    run_protoc(services, [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"])


def stubs_below(folder: Path) -> dict[str, bytes]:
    """Name and content of each generated file of the package below `folder`."""
    return {path.name: path.read_bytes() for glob in GENERATED for path in (folder / PACKAGE).glob(glob)}


def stale_stubs() -> list[str]:
    """Names of committed stubs that differ from what the .proto files give, are missing, or have no source."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, committed = stubs_below(Path(folder)), stubs_below(ROOT)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def copy_imports(target: Path) -> None:
    """Copy what the .proto files import of googleapis, directly or not, below `target`, and nothing else."""
    googleapis = include_folders()[1]
    shutil.rmtree(target, ignore_errors=True)
    waiting = sorted((ROOT / PACKAGE).glob("*.proto"))
    while waiting:
        for name in IMPORT.findall(waiting.pop().read_text()):
            copy = target / name
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(googleapis / name, copy)
                waiting.append(copy)


def main() -> int:
    """Write the stubs, check them, or copy the imports. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Generate the Python stubs of genie.v1.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the committed stubs differ"
    )
    parser.add_argument(
        "--imports", type=Path, metavar="FOLDER", help="copy the imported google/*.proto to FOLDER"
    )
    arguments = parser.parse_args()
    if arguments.imports is not None:
        copy_imports(arguments.imports)
        return 0
    if arguments.check:
        stale = stale_stubs()
        for name in stale:
            print(f"stale: {PACKAGE / name}; run `make stubs`", file=sys.stderr)
        return 1 if stale else 0
    for name in stubs_below(ROOT):
        (ROOT / PACKAGE / name).unlink()
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
