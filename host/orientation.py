"""Which operand is streamed, and whether zeros are left out: what takes the fewest cycles.

The engine skips zeros of the operand that it streams. A product may be computed as it stands, A
streamed, or transposed, C^T = B^T A^T, B streamed; and with or without the rows, indices and
columns that ``columns`` finds needless. Sums are exact, so all give the same bits; the exact cycle
model decides. Of ways that take equally long, compressed ones come first, then A as the streamed
operand.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..gen.config import Configuration
from ..gen.errors import UsageError, nearest
from ..hdl.formats import Format
from ..hdl.lane import COLUMNS
from .codec import compressed_bits
from .columns import Factor, Kept, kept, row_indices
from .cycles import GemmWork, cycles_of_each, gemm_cycles
from .masks import NonZeros
from .tiling import tile_columns
from .traffic import sent_words

__all__ = ["ORIENTATIONS", "Streaming", "Tally", "choose", "tally", "turns"]

ORIENTATIONS = ("auto", "a", "b")
T = TypeVar("T")


class Streaming(NamedTuple):
    """How one product goes through the engine."""

    turned: bool
    """Transposed: B is streamed."""
    kept: Kept | None
    """What is sent, rows being those of the streamed operand; None: everything."""
    work: GemmWork
    """What that costs."""
    nonzero: NonZeros
    """[R, K] of the streamed operand, what is sent of it."""
    columns: int
    """How many are sent of the loaded operand."""
    indices: Tensor | None
    """bool [R, K]: the indices that each row is sent with; None: all."""


@dataclass
class Tally:
    """What the products of one call cost, added up.

    ``cycles_dense`` are those of the products as they stand, A streamed, if no element were zero.
    ``transposed`` counts products (of a batch); ``bits_in`` are those of the operands, the streamed
    one zero-compressed, the loaded one as it is; ``scales_in`` are bytes of block scales;
    ``results`` are elements that come back. Words saved are 64-bit words that column compression
    has left out, of the streamed operand (a: masks and values) and of the loaded one (b).
    """

    cycles: int = 0
    cycles_dense: int = 0
    products: int = 0
    products_skipped: int = 0
    transposed: int = 0
    words_a_saved: int = 0
    words_b_saved: int = 0
    bits_in: int = 0
    scales_in: int = 0
    results: int = 0

    def add(self, other: "Tally") -> None:
        """Add another one."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def turns(orientation: str) -> tuple[bool, ...]:
    """The values of ``turned`` that an orientation allows; UsageError if there is none such."""
    allowed = {"auto": (False, True), "a": (False,), "b": (True,)}
    if orientation not in allowed:
        raise UsageError("X206", f"orientation is one of {', '.join(ORIENTATIONS)}; "
                                 f"got {orientation!r}{nearest(str(orientation), ORIENTATIONS)}")
    return allowed[orientation]


def choose(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format], *,
           scaled: bool = False, orientation: str = "auto", compress: bool = True) -> Streaming:
    """The way of one product that takes the fewest cycles.

    Parameters
    ----------
    config : Configuration
        The engine's.
    a, b : Factor
        Of [M, K] and [N, K]: A's rows and B's columns.
    formats : tuple of Format
        Of A and B.
    scaled : bool
        Whether an operand has block scales.
    orientation : str
        ``"auto"``, or ``"a"`` or ``"b"``: that operand is streamed.
    compress : bool
        Whether what need not be sent may be left out.
    """
    found = kept(a, b, config.vpcu.scale_block if scaled else 1) if compress else None
    return _best(config, a, b, formats, scaled, turns(orientation), compress, found)


def _best(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
          scaled: bool, allowed: tuple[bool, ...], compress: bool, found: Kept | None) -> Streaming:
    """`choose`, ``found`` being what is kept of the product."""
    ways: list[tuple[bool, Kept | None]] = [(turned, None) for turned in allowed]
    if found is not None:
        ways[:0] = [(turned, found.turned if turned else found) for turned in allowed]
    elif compress and a.nonzero.shape[1] > config.vpcu.b_depth:
        ways[:0] = [(turned, _everything(*_order(a, b, turned))) for turned in allowed]
    best = None
    for turned, parts in ways:
        streamed, loaded = _order(a, b, turned)
        order = _order(*formats, turned)
        if best is not None and parts is None and best.work.cycles <= _fewest_cycles(
                config, streamed.nonzero, loaded.nonzero.shape[0], order):
            continue
        nonzero, special, columns = streamed.nonzero, loaded.special, loaded.nonzero.shape[0]
        indices = None
        if parts is not None:
            nonzero = streamed.select(parts.rows, parts.inner).nonzero
            special = loaded.special_of(parts.columns, parts.inner)
            columns = int(parts.columns.sum())
            if nonzero.shape[1] > config.vpcu.b_depth:
                indices = row_indices(nonzero.mask, special,
                                      config.vpcu.scale_block if scaled else 1)
        work = gemm_cycles(config, nonzero, None if special is None else special.mT, order,
                           scaled=scaled, columns=columns, indices=indices)
        if best is None or work.cycles < best.work.cycles:
            best = Streaming(turned, parts, work, nonzero, columns, indices)
    assert best is not None
    return best


def tally(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format], *,
          scales: tuple[bool, bool] = (False, False), orientation: str = "auto",
          compress: bool = True) -> Tally:
    """What `choose` finds, added up over a product or a batch of them: factors [..., R, K]."""
    allowed, total = turns(orientation), Tally()
    (*batch, m, k), n = a.nonzero.shape, b.nonzero.shape[-2]
    total.cycles_dense = math.prod(batch) * _dense_cycles(
        config, (m, k, n), formats, any(scales), False)
    found = kept(a, b, config.vpcu.scale_block if any(scales) else 1) if compress else None
    together, alone = _parts(config, a, b, found, compress)
    if together is not None:
        total.add(_whole(config, *together, formats, scales, allowed))
    for part_a, part_b, parts in alone:
        way = _best(config, part_a, part_b, formats, any(scales), allowed, compress, parts)
        total.add(_tally_of(config, part_a, part_b, formats, scales, way))
    return total


def _parts(config: Configuration, a: Factor, b: Factor, found: Kept | None, compress: bool
           ) -> tuple[tuple[Factor, Factor] | None, list[tuple[Factor, Factor, Kept | None]]]:
    """The finite products that are sent whole, together, and each other one alone."""
    by_row = compress and a.nonzero.shape[-1] > config.vpcu.b_depth and not (
        _is_dense(a.nonzero) and _is_dense(b.nonzero))
    every = a.special is not None or b.special is not None or by_row
    if found is None and not every:
        return (a, b), []
    if a.nonzero.values.dim() == 2:
        return None, [(a, b, found)]
    alone = torch.full((len(a.nonzero.values),), every)
    for part in found or ():
        alone |= ~part.all(-1)
    others = (~alone).nonzero()[:, 0]
    together = (Factor(a.nonzero.at(others)), Factor(b.nonzero.at(others)))
    return together if len(others) else None, [
        (a.at(index), b.at(index), found and _partial(found.at(index)))
        for index in alone.nonzero()[:, 0].tolist()]


def _partial(found: Kept) -> Kept | None:
    """None if everything is kept."""
    return None if all(part.all() for part in found) else found


def _whole(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
           scales: tuple[bool, bool], allowed: tuple[bool, ...]) -> Tally:
    """Of finite products of which everything is sent, one or a batch, each in its best way."""
    m, k, n = *a.nonzero.shape[-2:], b.nonzero.shape[-2]
    count = a.nonzero.shape[:-2].numel()
    if not m or not n:
        return Tally()
    cycles: list[Any] = []
    dense = _is_dense(a.nonzero) and _is_dense(b.nonzero)
    for turned in allowed:
        if dense:
            cycles.append(_dense_cycles(config, (m, k, n), formats, any(scales), turned))
        else:
            streamed, order = (b, formats[::-1]) if turned else (a, formats)
            cycles.append(cycles_of_each(config, streamed.nonzero, m if turned else n, order,
                                         any(scales)))
    turned_ones = np.broadcast_to(
        allowed[0] if len(allowed) == 1 else np.less(cycles[1], cycles[0]), (count,))
    taken = np.broadcast_to(cycles[0] if len(cycles) == 1 else np.minimum(*cycles), (count,))
    found = Tally(cycles=int(taken.sum()), transposed=int(turned_ones.sum()),
                  results=count * m * n, scales_in=count * _scale_bytes(config, (m, n, k), scales))
    block, pair = config.zce.block, (a.nonzero, b.nonzero)
    for turned in (False, True):
        chosen = torch.from_numpy((turned_ones == turned).copy())
        number = int(chosen.sum())
        if number:
            nonzero, loads = _order(*pair, turned)
            if number < count:
                nonzero = nonzero.at(chosen)
            columns = loads.shape[-2]
            performed = int(nonzero.windows.sum()) * columns
            found.products += performed
            found.products_skipped += number * m * k * n - performed
            found.bits_in += _stream_bits(nonzero, formats[turned].width, block)
            found.bits_in += number * columns * k * formats[not turned].width
    return found


def _tally_of(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
              scales: tuple[bool, bool], way: Streaming) -> Tally:
    """Of one product that goes a known way."""
    streamed, loaded = _order(a, b, way.turned)
    order = _order(*formats, way.turned)
    rows, k, columns = *streamed.nonzero.shape, loaded.nonzero.shape[0]
    found = Tally(cycles=way.work.cycles, products=way.work.products,
                  products_skipped=rows * k * columns - way.work.products)
    if way.kept is not None:
        every, sent = (sent_words(config, nonzero, count, order, scaled=any(scales), indices=own)
                       for nonzero, count, own in ((streamed.nonzero, columns, None),
                                                   (way.nonzero, way.columns, way.indices)))
        found.words_a_saved, found.words_b_saved = every[0] - sent[0], every[1] - sent[1]
    rows, k, columns = *way.nonzero.shape, way.columns
    if rows and columns:
        found.transposed = int(way.turned)
        found.bits_in = (_stream_bits(way.nonzero, order[0].width, config.zce.block)
                         + columns * k * order[1].width)
        found.scales_in = _scale_bytes(config, (*_order(rows, columns, way.turned), k), scales)
        found.results = rows * columns
    return found


def _fewest_cycles(config: Configuration, streamed: NonZeros, columns: int,
                   formats: tuple[Format, Format]) -> int:
    """No product of these rows takes less, everything sent: they are issued and drained."""
    rows = streamed.shape[0]
    least = max(int(streamed.windows.sum()), rows * config.vpcu.lanes * COLUMNS)
    return least * -(-columns // tile_columns(config, formats))


@lru_cache(maxsize=1024)
def _dense_cycles(config: Configuration, sizes: tuple[int, int, int],
                  formats: tuple[Format, Format], scaled: bool, turned: bool) -> int:
    """Cycles of a finite product without a zero: of its sizes (M, K, N) alone."""
    m, k, n = sizes[::-1] if turned else sizes
    if not m or not n:
        return 0
    ones = NonZeros(torch.ones(1, 1, dtype=torch.bool).expand(m, k))
    return cycles_of_each(config, ones, n, formats[::-1] if turned else formats, scaled)


def _everything(streamed: Factor, loaded: Factor) -> Kept:
    (rows, inner), columns = streamed.nonzero.shape, loaded.nonzero.shape[0]
    return Kept(*(torch.ones(size, dtype=torch.bool) for size in (rows, inner, columns)))


def _order(first: T, second: T, turned: bool) -> tuple[T, T]:
    return (second, first) if turned else (first, second)


def _is_dense(x: NonZeros) -> bool:
    return int(x.windows.sum()) == x.shape.numel()


def _scale_bytes(config: Configuration, sizes: tuple[int, int, int],
                 scales: tuple[bool, bool]) -> int:
    """Bytes of the block scales of a product of these sizes (M, N, K), for the operands with any.
    """
    if not any(scales):
        return 0
    m, n, k = sizes
    return -(-k // config.vpcu.scale_block) * (m * scales[0] + n * scales[1])


def _stream_bits(x: NonZeros, width: int, block: int) -> int:
    """Bits of the zero-compressed streams [..., R, K], one for each product."""
    size = x.shape[-2:].numel()
    if x.values.dim() == 2 or size % block == 0:
        return compressed_bits(x, width, block)
    alone = torch.nn.functional.pad(x.mask.flatten(-2), (0, -size % block))
    return compressed_bits(alone, width, block)
