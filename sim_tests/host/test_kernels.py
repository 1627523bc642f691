"""The compiled loops give the bits of the torch path; without a compiler torch does the work."""

import _ctypes
import math
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from exactum.gen.errors import UsageError
from exactum.hdl.formats import BF16, E4M3, E5M2, FORMATS, FP16
from exactum.host import kernels, numerics
from exactum.host.gemm import exact_gemm
from exactum.host.masks import NonZeros
from exactum.host.numerics import decode, from_bits, operand, quantize, to_bits
from sim_tests.repository import ROOT

formats = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """The kernels as a process finds them that has not looked for them yet; an empty cache."""
    monkeypatch.setattr(kernels, "_loaded", None)
    monkeypatch.delenv(kernels.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def in_torch(x, fmt, **options):
    """`operand` without the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_loaded", (None, "none"))
        return operand(x, fmt, **options)


def with_neighbours(x):
    infinity = torch.tensor(math.inf)
    return torch.cat([x, torch.nextafter(x, infinity), torch.nextafter(x, -infinity)])


def borders(fmt):
    """Halfway between neighbours on the grid of ``fmt``, where subnormals and overflow begin."""
    bits = torch.arange(0, fmt.max_finite_bits, max(1, fmt.max_finite_bits >> 15))
    low, high = (decode(from_bits(bits + step, fmt)).double() for step in (0, 1))
    top = numerics.max_finite(fmt)
    ends = torch.tensor([top, math.nextafter(top, math.inf), 2.0 ** fmt.min_exponent, 0.0])
    half = with_neighbours(torch.cat([((low + high) / 2).float(), ends]))
    return torch.cat([half, -half])


def random_bits(count):
    random = torch.Generator().manual_seed(7)
    bits = torch.randint(0, 1 << 32, (count,), generator=random)
    return bits.to(torch.int32).view(torch.float32)


def values(fmt):
    """Every 16-bit pattern and its neighbours, the format's borders, any bits; as a matrix."""
    every = torch.cat([decode(from_bits(torch.arange(1 << 16), f)) for f in (FP16, BF16)])
    x = torch.cat([with_neighbours(every), borders(fmt), random_bits(50_000)])
    return torch.nn.functional.pad(x, (0, -len(x) % 331)).reshape(-1, 331)


def check(x, fmt):
    """Both paths agree on ``x`` [..., M, K], as left and as right factor."""
    for by_columns in (False, True):
        got, expected = operand(x, fmt, by_columns=by_columns), in_torch(x, fmt)
        assert got.values.shape == x.shape
        assert got.values.dtype == torch.float64
        same = (got.values == expected.values) | (got.values.isnan() & expected.values.isnan())
        assert same.all(), x[~same][:5]
        assert (got.finite, got.saturations) == (expected.finite, expected.saturations)
        rows = expected.values.mT if by_columns else expected.values
        assert torch.equal(got.windows, NonZeros(rows).windows)
        assert not by_columns or got.values.mT.is_contiguous()


def test_the_kernels_are_there():
    """Every other test of this file compares torch with torch otherwise."""
    assert kernels.library() is not None, kernels.status()
    assert kernels.status().startswith("compiled C")


@formats
def test_conversions_agree_on_every_kind_of_value(fmt):
    x = values(fmt)
    check(x, fmt)
    check(x.t(), fmt)
    check(x[x.isfinite().all(1)], fmt)


@formats
@pytest.mark.parametrize("source", FORMATS.values(), ids=FORMATS)
def test_any_dtype_converts_alike(fmt, source):
    bits = torch.arange(1 << min(source.width, 16)) << max(0, source.width - 16)
    x = from_bits(bits.reshape(-1, 64), source)
    check(x, fmt)
    check(x.t(), fmt)


LAYOUTS = {
    "contiguous": lambda x: x,
    "turned": lambda x: x.t(),
    "sliced": lambda x: x[3:, 5:69],
    "strided rows": lambda x: x[::3],
    "strided elements": lambda x: x[:, 1::2],
    "both, turned": lambda x: x[1::2, ::3].t(),
    "one row for all": lambda x: x[:1].expand(40, -1),
    "one element for all": lambda x: x[:, :1].expand(-1, 70),
    "a batch": lambda x: x[:140, :192].reshape(7, 20, 192),
    "a turned batch": lambda x: x[:140, :192].reshape(7, 20, 192).mT,
    "a batch across": lambda x: x[:140, :192].reshape(20, 7, 192).transpose(0, 1),
    "one matrix for all": lambda x: x[:30].expand(3, -1, -1),
    "one row": lambda x: x[:1],
    "one column": lambda x: x[:, :1],
    "whole windows": lambda x: x[:136, :128],
    "whole windows, turned": lambda x: x[:128, :136].t(),
    "no rows": lambda x: x[:0],
    "no elements": lambda x: x[:, :0],
    "no matrices": lambda x: x[:0].expand(0, 0, 331).reshape(0, 4, 331),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fmt", [E4M3, E5M2, BF16], ids=lambda fmt: fmt.name)
def test_any_layout_converts_alike(fmt, layout):
    random = torch.Generator().manual_seed(3)
    x = torch.randn(300, 331, generator=random).mul_(3).exp_().sub_(1).relu_()
    x[::7] *= -1
    check(LAYOUTS[layout](x), fmt)
    if fmt.width == 8:
        check(LAYOUTS[layout](quantize(x, fmt)), fmt)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    before = torch.get_num_threads()
    x = torch.randn(700, 500, generator=torch.Generator().manual_seed(4)) * 200
    try:
        torch.set_num_threads(threads)
        check(x, E4M3)
        check(x.t(), E4M3)
        test_sums_round_like_torch(0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("exponent", [0, 3, -140, -1000, 1000])
def test_sums_round_like_torch(exponent):
    x = torch.cat([random_bits(200_000).double() * (1 + 2.0 ** -30),
                   torch.tensor([0.0, -0.0, 5e-324, -5e-324, -1e-60, 1e300, -1e300, math.inf,
                                 -math.inf, math.nan])])
    got = kernels.round_sums(x, 2.0 ** exponent)
    expected = ((x + 0.0) * 2.0 ** exponent).to(torch.float32)
    nan = expected.isnan()
    assert torch.equal(got.isnan(), nan)
    assert torch.equal(to_bits(got[~nan]), to_bits(expected[~nan]))
    assert to_bits(got[-9]) == 0                                       # an exact zero is +0
    assert kernels.round_sums(x.reshape(2, -1).t(), 1.0) is None


@formats
def test_products_have_the_same_bits_and_flags(fmt, monkeypatch):
    random = torch.Generator().manual_seed(5)
    a, b = (torch.randn(40, 40, generator=random).mul_(9).exp_() for _ in range(2))
    a[:, ::3], b[5] = 0.0, -b[5]
    compiled = exact_gemm(a, b, (fmt.name, fmt.name))
    monkeypatch.setattr(kernels, "_loaded", (None, "none"))
    plain = exact_gemm(a, b, (fmt.name, fmt.name))
    assert torch.equal(to_bits(compiled[0]), to_bits(plain[0]))
    assert torch.equal(compiled[1], plain[1])


def test_the_library_is_compiled_once_into_the_cache(fresh, monkeypatch):
    assert kernels.library() is not None
    folder = fresh / "exactum" / "kernels"
    built, = folder.iterdir()
    assert built.suffix == ".so"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(kernels, "_loaded", None)
    monkeypatch.setattr(subprocess, "run", None)
    assert kernels.library() is not None


def no_compiler(monkeypatch, _):
    monkeypatch.setenv("PATH", "")


def compiler_that(does):
    def trouble(monkeypatch, folder):
        program = folder / "cc"
        program.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        program.chmod(0o700)
        monkeypatch.setenv("PATH", str(folder))
    return trouble


def unusable_cache(monkeypatch, folder):
    (folder / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))


def switched_off(monkeypatch, _):
    monkeypatch.setenv(kernels.SWITCH, "off")


TROUBLES = {
    "no compiler": (no_compiler, "no C compiler"),
    "a compiler that fails": (compiler_that("echo 'no headers' >&2; exit 1"), "no headers"),
    "a compiler that fails silently": (compiler_that("exit 3"), "cc failed: 3"),
    "a compiler that writes nothing": (compiler_that("exit 0"), "No such file"),
    "a compiler that writes rubbish": (
        compiler_that('while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"'), "too short"),
    "no place for a cache": (unusable_cache, "Not a directory"),
    "switched off": (switched_off, "EXACTUM_KERNELS=off"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_in_trouble_torch_does_the_work(fresh, monkeypatch, name):
    trouble, says = TROUBLES[name]
    trouble(monkeypatch, fresh)
    x = torch.randn(3, 70)
    assert kernels.library() is None
    assert says in kernels.status()
    assert operand(x, E4M3).windows is None
    assert kernels.round_sums(x.double(), 1.0) is None
    assert exact_gemm(x, x.t())[0].shape == (3, 3)


@pytest.mark.parametrize("spoiled", ["empty", "another library"])
def test_a_spoiled_library_is_compiled_again(fresh, monkeypatch, spoiled):
    kernels.library()
    library, = fresh.glob("exactum/kernels/*.so")
    library.unlink()
    library.write_bytes(b"" if spoiled == "empty" else Path(_ctypes.__file__).read_bytes())
    monkeypatch.setattr(kernels, "_loaded", None)
    assert kernels.library() is not None
    assert kernels.status().startswith("compiled C")


def test_an_empty_switch_is_none(fresh, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "")
    assert kernels.library() is not None


def test_an_unknown_switch_is_named(fresh, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "fo")
    with pytest.raises(UsageError, match=r"X206.*EXACTUM_KERNELS is one of on, off; got 'fo'"):
        kernels.library()


def test_two_processes_may_compile_at_once(fresh):
    line = "from exactum.host import kernels; print(kernels.status())"
    both = [subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE, text=True,
                             cwd=ROOT) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].startswith("compiled C")
            for process in both] == [True, True]
    assert len(list((fresh / "exactum" / "kernels").iterdir())) == 1


def changed(**fields):
    """A fault: the kernel is asked for something else."""
    def convert(x, **options):
        return CONVERT(x, **options | fields)
    return convert


CONVERT = kernels.convert
FAULTS = {
    "truncated mantissa": (changed(mantissa_width=2), E4M3),
    "subnormals one bit short": (changed(min_exponent=-5), E4M3),
    "infinity instead of the largest": (changed(beyond=math.inf), E5M2),
    "overflow one step late": (changed(largest=480.0), E4M3),
    "bf16 not rounded": (changed(kind=kernels.AS_IT_IS), BF16),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tests_catch_faults(monkeypatch, fault):
    convert, fmt = FAULTS[fault]
    monkeypatch.setattr(kernels, "convert", convert)
    with pytest.raises(AssertionError):
        test_conversions_agree_on_every_kind_of_value(fmt)
