"""The one place that says how kernels are compiled and where they are kept. Knows nothing of what they compute."""

import contextlib
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, config, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic

P = ParamSpec("P")
R = TypeVar("R")

_LINE_BYTES = 64
"""Of a cache."""
_ALL = ("engine", "store", "server", "genie")
"""Packages whose constants kernels outside the engine may take."""
_CHOSEN: str = getattr(config, "CACHE_DIR", "")


def _sources(folder: Traversable) -> list[Traversable]:
    """Every Python file below a folder, in order of name."""
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry)
        elif entry.name.endswith(".py"):
            found.append(entry)
    return found


@cache
def _place(package: str) -> str:
    """The folder of a package's compiled kernels, named after all sources that these may take from.

    numba looks only at the file that holds a kernel when it decides whether a kept one still fits, not at kernels and
    constants that it takes from other files: after an upgrade it would go on with what was. Where the folder cannot be
    made, numba's own choice stays, and kernels are compiled into the user's cache.
    """
    root = files("engine")
    digest = blake2b(numba.__version__.encode(), digest_size=8)
    for name in ("engine",) if package == "engine" else _ALL:
        with contextlib.suppress(ModuleNotFoundError):
            for source in _sources(files(name)):
                digest.update(source.read_bytes())
    if _CHOSEN:
        return f"{_CHOSEN}/genie-{digest.hexdigest()}"
    place = root / "__pycache__" / f"kernels-{digest.hexdigest()}"
    with contextlib.suppress(OSError, AttributeError):
        place.mkdir(parents=True, exist_ok=True)  # type: ignore[attr-defined]
        return str(place)
    return ""


def _kept_apart(compiler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The compiler, with kernels kept in their package's place; numba looks where that is when it meets a kernel."""

    def compiled(function: Any) -> Any:
        setattr(config, "CACHE_DIR", _place(function.__module__.partition(".")[0]))  # noqa: B010
        return compiler(function)

    return compiled


if TYPE_CHECKING:

    def kernel(function: Callable[P, R]) -> Callable[P, R]:
        """Compile a flat numeric function; typed as the function itself."""
        return function

    def brief_kernel(function: Callable[P, R]) -> Callable[P, R]:
        """The same, keeping hold of the interpreter: for what takes less time than letting go and coming back."""
        return function

    def lean_kernel(function: Callable[P, R]) -> Callable[P, R]:
        """The same as `kernel`, for what neither makes an array nor returns one: arrays that it takes are not counted.

        numba counts who holds an array, with a locked instruction each time that a function takes or lets go of it, or
        of a tuple that holds it: a fifth of the time of the kernel that takes answers in.
        """
        return function

    def prefetch(array: npt.NDArray[Any], index: int) -> None:
        """Ask the processor for entry `index` of an array (n,) that a kernel will read soon; changes nothing.

        Loads that are asked for ahead wait at the same time, not one after another.
        """

    def array_at(address: int, count: int, dtype: Any) -> npt.NDArray[Any]:
        """Return (count,) of what is in memory at an address, in a kernel; who calls that keeps the memory alive.

        An array that is handed over costs numba as much as a hundred instructions, an address nothing.
        """

    def copy_bytes(
        to: npt.NDArray[np.uint8], at: int, source: npt.NDArray[np.uint8], start: int, size: int
    ) -> None:
        """Copy `size` bytes between arrays that do not overlap, in a kernel; looks at no bounds."""

else:
    # fastmath stays off: it reorders sums, and replay must rebuild records bit for bit.
    kernel = _kept_apart(njit(cache=True, nogil=True, fastmath=False, error_model="numpy"))
    brief_kernel = _kept_apart(njit(cache=True, nogil=False, fastmath=False, error_model="numpy"))
    lean_kernel = _kept_apart(njit(cache=True, nogil=True, fastmath=False, error_model="numpy", _nrt=False))

    @intrinsic
    def prefetch(_, array, index):  # noqa: D103 - said above
        size = array.dtype.size if isinstance(array.dtype, types.Record) else array.dtype.bitwidth // 8

        def generate(context, builder, signature, arguments):
            start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            entry = builder.bitcast(builder.gep(start, [arguments[1]]), byte)
            hint = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            ask = cgutils.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0i8")
            for line in range(0, size, _LINE_BYTES):
                place = builder.gep(entry, [ir.Constant(ir.IntType(64), line)])
                builder.call(ask, [place, number(0), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(array, index), generate

    @intrinsic
    def copy_bytes(_, to, at, source, start, size):  # noqa: D103 - said above
        def generate(context, builder, signature, arguments):
            places = []
            for array, offset in ((0, 1), (2, 3)):
                data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
                offset = context.cast(builder, arguments[offset], signature.args[offset], types.intp)
                places.append(builder.gep(data, [offset]))
            count = context.cast(builder, arguments[4], signature.args[4], types.intp)
            cgutils.raw_memcpy(builder, *places, count, 1)
            return context.get_dummy_value()

        return types.void(to, at, source, start, size), generate

    @intrinsic
    def _pointer(_, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

        return types.voidptr(address), generate

    @kernel
    def array_at(address, count, dtype):  # noqa: D103 - said above
        return carray(_pointer(address), count, dtype)
