"""The emulator's element-wise loops in C, compiled once per user; without them torch does the work.

``kernels.c`` is compiled at first use with the machine's own compiler into the user's cache folder
(``$XDG_CACHE_HOME/exactum/kernels``, else ``~/.cache/exactum/kernels``), under a name that says
what it was made from. Where that fails, every function here returns None and its caller computes
the same bits in torch. ``EXACTUM_KERNELS=off`` asks for that.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..gen.errors import UsageError, nearest

__all__ = ["Converted", "convert", "library", "round_sums", "status"]

SWITCH = "EXACTUM_KERNELS"
COMPILERS = ("cc", "gcc", "clang", "g++")
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-psabi")
TIMEOUT = 120                  # seconds to compile; it takes one or two
WINDOW = 64                    # elements of a count
AS_IT_IS, GRID, UPPER_HALF = 0, 1, 2
_WORTH_A_THREAD = 1 << 16      # elements; a thread starts in the time that takes

_lock = threading.Lock()
_loaded: tuple[ctypes.CDLL | None, str] | None = None


class _Conversion(ctypes.Structure):
    """``Conversion`` of kernels.c."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("table", ctypes.c_void_p),
        ("batches", ctypes.c_int64), ("rows", ctypes.c_int64), ("length", ctypes.c_int64),
        ("batch_stride", ctypes.c_int64), ("row_stride", ctypes.c_int64),
        ("element_stride", ctypes.c_int64),
        ("out", ctypes.c_void_p), ("counts", ctypes.c_void_p), ("kind", ctypes.c_int64),
        ("smallest", ctypes.c_float), ("ceiling", ctypes.c_float), ("constant", ctypes.c_float),
        ("largest", ctypes.c_float), ("beyond", ctypes.c_float),
        ("saturated", ctypes.c_longlong), ("special", ctypes.c_longlong),
    )


class Converted(NamedTuple):
    """What `convert` found in its one pass."""

    values: Tensor
    """float64, contiguous, of the shape of its input."""
    counts: Tensor
    """int64 [..., rows, ceil(length / 64)]: elements that are not zero."""
    saturated: int
    """Elements beyond ``largest``."""
    special: int
    """Infinities and NaN in ``values``."""


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None; compiles or loads them at the first call.

    Raises
    ------
    UsageError
        X206 if ``EXACTUM_KERNELS`` is neither on nor off.
    """
    return _state()[0]


def status() -> str:
    """Which loops are used, in a few words: for people."""
    return _state()[1]


def convert(x: Tensor, *, kind: int, largest: float, beyond: float, mantissa_width: int = 0,
            min_exponent: int = 0, max_exponent: int = 0,
            table: Tensor | None = None) -> Converted | None:
    """Round float32 values to a format and widen them; None if the kernels are not there.

    Parameters
    ----------
    x : Tensor
        [M, K] or [B, M, K], any strides, on the CPU; float32, or uint8 if ``table`` is given.
    kind : int
        ``AS_IT_IS``; ``GRID``: round to ``mantissa_width`` bits, not below ``min_exponent``;
        ``UPPER_HALF``: round to bf16.
    largest, beyond : float
        What lies beyond +-``largest`` becomes +-``beyond``. NaN stays NaN.
    mantissa_width, min_exponent, max_exponent : int
        Of the format, for ``GRID``; 23 - mantissa_width + max_exponent is at most 125.
    table : Tensor, optional
        float32 [256], contiguous: the value of each code.
    """
    found = library()
    if found is None:
        return None
    *batch, rows, length = x.shape
    values = torch.empty(x.shape, dtype=torch.float64)
    counts = torch.empty((*batch, rows, -(-length // WINDOW)), dtype=torch.int64)
    job = _Conversion(
        x.data_ptr(), None if table is None else table.data_ptr(),
        batch[0] if batch else 1, rows, length,
        x.stride(0) if batch else 0, x.stride(-2), x.stride(-1),
        values.data_ptr(), counts.data_ptr(), kind,
        2.0 ** min_exponent, 2.0 ** (max_exponent + 1), 1.5 * 2.0 ** (23 - mantissa_width),
        largest, beyond, 0, 0)
    if x.numel():
        found.exactum_convert(ctypes.byref(job), _team(), _threads(x.numel()))
    return Converted(values, counts, job.saturated, job.special)


def round_sums(sums: Tensor, scale: float) -> Tensor | None:
    """float32(scale * sums) of contiguous float64, an exact zero as +0; None without kernels."""
    found = library()
    if found is None or not sums.is_contiguous():
        return None
    out = torch.empty(sums.shape, dtype=torch.float32)
    found.exactum_round(sums.data_ptr(), out.data_ptr(), sums.numel(), scale, _team(),
                        _threads(sums.numel()))
    return out


def _threads(elements: int) -> int:
    return max(1, min(torch.get_num_threads(), elements // _WORTH_A_THREAD))


@cache
def _team() -> int | None:
    """Address of GOMP_parallel in torch's own OpenMP, whose threads the kernels share; or None."""
    try:
        found = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    return ctypes.cast(found, ctypes.c_void_p).value


def _state() -> tuple[ctypes.CDLL | None, str]:
    """The library and the word about it, found once per process."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = _find()
    return _loaded


def _find() -> tuple[ctypes.CDLL | None, str]:
    """Load the kernels, compiling them if nobody has; or say why not."""
    switch = os.environ.get(SWITCH, "").lower() or "on"
    if switch not in ("on", "off"):
        raise UsageError("X206", f"{SWITCH} is one of on, off; "
                                 f"got {switch!r}{nearest(switch, ('on', 'off'))}")
    if switch == "off":
        return None, f"torch ({SWITCH}=off)"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None, f"torch (no C compiler: none of {', '.join(COMPILERS)} is in PATH)"
    try:
        path = _compiled(compiler)
        try:
            found = _load(path)
        except (OSError, AttributeError):  # not what was put there: compile it again
            path.unlink()
            found = _load(_compiled(compiler))
        return found, f"compiled C ({Path(compiler).name})"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        return None, f"torch ({compiler} failed: {lines[0] if lines else error.returncode})"
    except (OSError, AttributeError, RuntimeError, subprocess.TimeoutExpired) as error:
        return None, f"torch ({error})"


def _cache() -> Path:
    """The folder of compiled kernels; RuntimeError if the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "exactum" / "kernels"


def _compiled(compiler: str) -> Path:
    """The shared library, compiled unless the cache has it."""
    source = (resources.files(__package__) / "kernels.c").read_bytes()
    key = hashlib.sha256(source)
    key.update("\0".join((os.path.realpath(compiler), *FLAGS, platform.machine(),
                          *platform.libc_ver())).encode())
    target = _cache() / f"{key.hexdigest()[:32]}.so"
    if target.is_file():
        return target
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Built beside and renamed: another process sees all of it or nothing.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        text, built = Path(folder) / "kernels.c", Path(folder) / "kernels.so"
        text.write_bytes(source)
        language = ("-x", "c")   # whatever the compiler takes the file for
        subprocess.run([compiler, *FLAGS, *language, "-o", str(built), str(text)], check=True,
                       capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
                       stdin=subprocess.DEVNULL)
        built.replace(target)
    return target


def _load(path: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(path))
    found.exactum_convert.argtypes = [ctypes.POINTER(_Conversion), ctypes.c_void_p,
                                      ctypes.c_uint]
    found.exactum_convert.restype = None
    found.exactum_round.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                    ctypes.c_double, ctypes.c_void_p, ctypes.c_uint]
    found.exactum_round.restype = None
    return found
