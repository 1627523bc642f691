"""What the products of one call cost in all: for the counters of a device."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gen.config import Configuration
from ..hdl.formats import Format
from .columns import Factor, Kept, kept
from .cycles import cycles_of_each, fewest_cycles
from .masks import NonZeros
from .orientation import Streaming, best_way, ordered, turns
from .traffic import sent_bytes, sent_words

__all__ = ["Tally", "tally"]


@dataclass
class Tally:
    """What the products of one call cost, added up.

    ``cycles_dense`` are those of the products if no element were zero, in the better orientation.
    ``transposed`` counts products (of a batch); ``bytes_in`` are those of the operands, as they are
    sent into the engine (`traffic.sent_bytes`); ``results`` are elements that come back. Words
    saved are 64-bit words that column compression has left out, of the streamed operand (a: masks
    and values) and of the loaded one (b).
    """

    cycles: int = 0
    cycles_dense: int = 0
    products: int = 0
    products_skipped: int = 0
    transposed: int = 0
    words_a_saved: int = 0
    words_b_saved: int = 0
    bytes_in: int = 0
    results: int = 0

    def add(self, other: "Tally") -> None:
        """Add another one."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def tally(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format], *,
          scales: tuple[bool, bool] = (False, False), orientation: str = "auto",
          compress: bool = True) -> Tally:
    """What `choose` finds, added up over a product or a batch of them: factors [..., R, K]."""
    allowed, total = turns(orientation), Tally()
    (*batch, m, k), n = a.nonzero.shape, b.nonzero.shape[-2]
    total.cycles_dense = math.prod(batch) * min(
        _dense_cycles(config, (m, k, n), formats, any(scales), turned) for turned in allowed)
    found = kept(a, b, config.vpcu.scale_block if any(scales) else 1) if compress else None
    together, alone = _parts(config, a, b, found, compress)
    if together is not None:
        total.add(_whole(config, *together, formats, scales, allowed))
    for part_a, part_b, parts in alone:
        way = best_way(config, part_a, part_b, formats, any(scales), allowed, compress, parts)
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
    turned_ones, taken = (np.broadcast_to(x, (count,)) for x in _fewest(
        config, a, b, formats, any(scales), allowed))
    found = Tally(cycles=int(taken.sum()), transposed=int(turned_ones.sum()),
                  results=count * m * n)
    pair = (a.nonzero, b.nonzero)
    for turned in (False, True):
        chosen = torch.from_numpy((turned_ones == turned).copy())
        number = int(chosen.sum())
        if number:
            nonzero, loads = ordered(*pair, turned)
            if number < count:
                nonzero = nonzero.at(chosen)
            columns = loads.shape[-2]
            performed = int(nonzero.windows.sum()) * columns
            found.products += performed
            found.products_skipped += number * m * k * n - performed
            found.bytes_in += sent_bytes(config, nonzero, columns, ordered(*formats, turned),
                                         scaled=any(scales))
    return found


def _fewest(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
            scaled: bool, allowed: tuple[bool, ...]) -> tuple[Any, Any]:
    """For one product or each of a batch, whether it is turned, and its cycles.

    Products without a zero are known by their sizes; of others, the way is tried first that may be
    the shorter one, and the other one only if it may be shorter still.
    """
    m, k, n = *a.nonzero.shape[-2:], b.nonzero.shape[-2]
    if _is_dense(a.nonzero) and _is_dense(b.nonzero):
        costs: dict[bool, Any] = {turned: _dense_cycles(config, (m, k, n), formats, scaled, turned)
                                  for turned in allowed}
    else:
        ways = {turned: (*((b.nonzero, m) if turned else (a.nonzero, n)), ordered(*formats, turned))
                for turned in allowed}
        least = {turned: fewest_cycles(config, *ways[turned]) for turned in allowed}
        costs = {}
        for turned in sorted(allowed, key=lambda turned: np.sum(least[turned])):
            if costs:  # of ways that take equally long, that of A is taken
                known, bound = costs[not turned], least[turned]
                if not np.any(known > bound if turned else known >= bound):
                    continue
            costs[turned] = cycles_of_each(config, *ways[turned], scaled)
    if len(costs) == 1:
        return next(iter(costs.items()))
    return np.less(costs[True], costs[False]), np.minimum(costs[True], costs[False])


def _tally_of(config: Configuration, a: Factor, b: Factor, formats: tuple[Format, Format],
              scales: tuple[bool, bool], way: Streaming) -> Tally:
    """Of one product that goes a known way."""
    streamed, loaded = ordered(a, b, way.turned)
    order = ordered(*formats, way.turned)
    rows, k, columns = *streamed.nonzero.shape, loaded.nonzero.shape[0]
    found = Tally(cycles=way.work.cycles, products=way.work.products,
                  products_skipped=rows * k * columns - way.work.products)
    if way.kept is not None:
        every, sent = (sent_words(config, nonzero, count, order, scaled=any(scales), indices=own)
                       for nonzero, count, own in ((streamed.nonzero, columns, None),
                                                   (way.nonzero, way.columns, way.indices)))
        found.words_a_saved, found.words_b_saved = every[0] - sent[0], every[1] - sent[1]
    rows = way.nonzero.shape[0]
    if rows and way.columns:
        found.transposed = int(way.turned)
        found.bytes_in = sent_bytes(config, way.nonzero, way.columns, order, scaled=any(scales),
                                    indices=way.indices)
        found.results = rows * way.columns
    return found


@lru_cache(maxsize=1024)
def _dense_cycles(config: Configuration, sizes: tuple[int, int, int],
                  formats: tuple[Format, Format], scaled: bool, turned: bool) -> int:
    """Cycles of a finite product without a zero: of its sizes (M, K, N) alone."""
    m, k, n = sizes[::-1] if turned else sizes
    if not m or not n:
        return 0
    ones = NonZeros(torch.ones(1, 1, dtype=torch.bool).expand(m, k))
    return cycles_of_each(config, ones, n, formats[::-1] if turned else formats, scaled)


def _is_dense(x: NonZeros) -> bool:
    return int(x.windows.sum()) == x.shape.numel()
