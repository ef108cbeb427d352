"""The one place that says how kernels are compiled. Knows nothing of what they compute."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:

    def kernel(function: Callable[P, R]) -> Callable[P, R]:
        """Compile a flat numeric function; typed as the function itself."""
        return function

else:
    # fastmath stays off: it reorders sums, and replay must rebuild records bit for bit.
    kernel = njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
