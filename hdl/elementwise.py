"""The elementwise unit: three fp32 operations on each element of a row (docs/elementwise.md).

     i ---> x ---> minus s ---> times q ---> minus t, or t minus it ---> o
             q ------------------^            ^
             t -------------------------------'
"""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, register, register_like
from .float_add import ADD_LATENCY, FloatAdd
from .float_multiply import MULTIPLY_LATENCY, FloatMultiply
from .float_widen import WIDEN_LATENCY, FloatWiden
from .formats import FP32, FormatCode
from .geometry import TARGETS
from .softmax_layouts import row_beat

__all__ = ["ELEMENTWISE_LATENCY", "Elementwise", "ElementwiseOperation", "ElementwiseRow",
           "elementwise_beat"]

MAX_LANES = 16

ELEMENTWISE_LATENCY = 1 + WIDEN_LATENCY + ADD_LATENCY + MULTIPLY_LATENCY + ADD_LATENCY
"""Cycles from a beat going in to its results coming out."""

ElementwiseOperation = data.StructLayout({
    "x": FormatCode, "q": FormatCode, "t": FormatCode, "q_is_scalar": 1, "t_is_scalar": 1,
    "negate": 1, "rows": 16})
"""``rows`` rows (at least 1): the formats of their elements; whether q and t are one number for a
row, so that the elements' format means nothing; t - v instead of v - t."""

ElementwiseRow = data.StructLayout({"s": FP32.width, "q": FP32.width, "t": FP32.width})
"""A row's numbers, in fp32: s, and those of q and t that are one number for the row."""


def elementwise_beat(lanes):
    """Up to ``lanes`` elements of a row: ``row_beat`` with three elements in each lane.

    Where q or t is one number for the row, the beat's mean nothing.
    """
    elements = data.ArrayLayout(FP32.width, lanes)
    return data.StructLayout({
        "x": elements, "q": elements, "t": elements, "count": range(lanes + 1), "last": 1})


class Chain(wiring.Component):
    """One lane: w = (x - s) * q - t, or t - (x - s) * q, each operation rounded.

    Parameters
    ----------
    target : str
        Primitives, see ``Multiplier``.

    Members
    -------
    x, q, t : In(32), x_format, q_format, t_format : In(FormatCode)
        Elements and their formats.
    s : In(32), negate : In(1)
        The same for all of a row.
    enable : In(1)
        See ``FloatMultiply``.
    o : Out(32)
        The result.

    Timing
    ------
    Latency ``ELEMENTWISE_LATENCY`` less 1, one element per cycle. ``s`` is wanted ``WIDEN_LATENCY``
    cycles after ``x``, ``negate`` with the second addition.
    """

    def __init__(self, *, target):
        self.target = target
        super().__init__({
            **dict.fromkeys("xqt", In(FP32.width)),
            **{f"{name}_format": In(FormatCode) for name in "xqt"},
            "s": In(FP32.width), "negate": In(1), "enable": In(1), "o": Out(FP32.width)})

    def elaborate(self, platform):
        m = Module()
        widened = {}
        for name in "xqt":
            m.submodules[f"widen_{name}"] = widen = FloatWiden()
            m.d.comb += [widen.value.eq(getattr(self, name)),
                         widen.format.eq(getattr(self, f"{name}_format"))]
            widened[name] = widen.o
        m.submodules.first = first = FloatAdd(target=self.target)
        m.submodules.multiply = multiply = FloatMultiply(target=self.target)
        m.submodules.second = second = FloatAdd(target=self.target)
        t = delayed(m, widened["t"], ADD_LATENCY + MULTIPLY_LATENCY, "t")
        m.d.comb += [
            first.a.eq(widened["x"]), first.b.eq(turned(self.s, 1)),
            multiply.a.eq(first.o), multiply.b.eq(delayed(m, widened["q"], ADD_LATENCY, "q")),
            multiply.enable.eq(self.enable),
            second.a.eq(turned(multiply.o, self.negate)), second.b.eq(turned(t, ~self.negate)),
            self.o.eq(second.o),
        ]
        return m


def turned(value, turns):
    """The value with its sign turned if ``turns``."""
    return Cat(value[:-1], value[-1] ^ turns)


class Chains(wiring.Component):
    """All lanes and what goes along with a beat: everything that a stall holds.

    Parameters
    ----------
    lanes, target
        As in ``Elementwise``.

    Members
    -------
    valid : In(1), operation, row, beat : In
        A beat, and the operation and the row that it belongs to.
    enable : In(1)
        See ``FloatMultiply``.
    o : Out(stream of row_beat(lanes), always ready)
        Results.

    Timing
    ------
    Latency ``ELEMENTWISE_LATENCY`` cycles, one beat per cycle. Held by its clock enable.
    """

    def __init__(self, *, lanes, target):
        self.lanes, self.target = lanes, target
        super().__init__({
            "valid": In(1), "operation": In(ElementwiseOperation), "row": In(ElementwiseRow),
            "beat": In(elementwise_beat(lanes)), "enable": In(1),
            "o": Out(stream.Signature(row_beat(lanes), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        operation, row, beat = self.operation, self.row, self.beat
        s1_formats = {name: register(FormatCode, name=f"s1_{name}_format") for name in "xqt"}
        m.d.sync += s1_formats["x"].eq(operation.x)
        for name in "qt":
            m.d.sync += s1_formats[name].eq(
                Mux(operation[f"{name}_is_scalar"], FormatCode.FP32, operation[name]))
        s = delayed(m, row.s, 1 + WIDEN_LATENCY, "s")
        negate = delayed(m, operation.negate, ELEMENTWISE_LATENCY - ADD_LATENCY, "negate")
        for lane in range(self.lanes):
            m.submodules[f"lane_{lane}"] = chain = Chain(target=self.target)
            s1 = {name: register_like(beat[name][lane], name=f"s1_{name}{lane}") for name in "xqt"}
            m.d.sync += s1["x"].eq(beat.x[lane])
            for name in "qt":
                m.d.sync += s1[name].eq(
                    Mux(operation[f"{name}_is_scalar"], row[name], beat[name][lane]))
            m.d.comb += [
                *(getattr(chain, name).eq(s1[name]) for name in "xqt"),
                *(getattr(chain, f"{name}_format").eq(s1_formats[name]) for name in "xqt"),
                chain.s.eq(s), chain.negate.eq(negate), chain.enable.eq(self.enable),
                self.o.payload.elements[lane].eq(chain.o),
            ]
        m.d.comb += [
            self.o.valid.eq(delayed(m, self.valid, ELEMENTWISE_LATENCY, "valid",
                                    reset_less=False)),
            self.o.payload.count.eq(delayed(m, beat.count, ELEMENTWISE_LATENCY, "count")),
            self.o.payload.last.eq(delayed(m, beat.last, ELEMENTWISE_LATENCY, "last")),
        ]
        return m


class Elementwise(wiring.Component):
    """Computes u = x - s, v = u * q, w = v - t (or t - v) of each element of a row, in fp32.

    Parameters
    ----------
    lanes : int
        Elements of a beat, and so per cycle: a power of two in 1..16.
    target : str
        Primitives, see ``Multiplier``.

    Members
    -------
    i_operation : In(stream of ElementwiseOperation)
        How many rows, what they are of and what becomes of them. Taken with the last beat of its
        last row.
    i_row : In(stream of ElementwiseRow)
        The numbers of each row, taken with its last beat.
    i : In(stream of elementwise_beat(lanes))
        Rows, one after the other, of any length.
    o : Out(stream of row_beat(lanes))
        The results w, fp32, in beats of the same counts.

    Timing
    ------
    One beat per cycle, in and out at once, each ``ELEMENTWISE_LATENCY`` (43) cycles after it went
    in; no bubble between rows or operations. ``i.ready`` falls while no operation or no row waits,
    and while ``o`` is stalled: then everything is held, by a clock enable. So ``i.ready`` follows
    ``o.ready`` in the same cycle. After reset everything is empty. ``o`` comes from registers.

    Numerics
    --------
    docs/elementwise.md, rules E1 to E5: elements are converted exactly; each of the three is
    rounded once to nearest even, subnormals honoured, as IEEE 754 has it; NaN is canonical.

    Raises
    ------
    TypeError, ValueError
        If ``lanes`` is not an int, or a parameter not a legal one.
    """

    def __init__(self, *, lanes, target="generic"):
        if not isinstance(lanes, int) or isinstance(lanes, bool):
            raise TypeError(f"lanes is an int; got {lanes!r}")
        if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
            raise ValueError(f"lanes is a power of two in 1..{MAX_LANES}; got {lanes}")
        if target not in TARGETS:
            raise ValueError(f"target is one of {TARGETS}; got {target!r}")
        self.lanes = lanes
        self.target = target
        super().__init__({
            "i_operation": In(stream.Signature(ElementwiseOperation)),
            "i_row": In(stream.Signature(ElementwiseRow)),
            "i": In(stream.Signature(elementwise_beat(lanes))),
            "o": Out(stream.Signature(row_beat(lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        chains = Chains(lanes=self.lanes, target=self.target)
        moves = Signal()
        m.submodules.chains = EnableInserter(moves)(chains)
        operation = self.i_operation.payload
        row = Signal(16)
        can_enter = Signal()
        ends_row = Signal()
        is_last_row = Signal()
        m.d.comb += [
            moves.eq(self.o.ready | ~self.o.valid),
            can_enter.eq(self.i_operation.valid & self.i_row.valid),
            ends_row.eq(moves & can_enter & self.i.valid & self.i.payload.last),
            self.i.ready.eq(moves & can_enter),
            self.i_row.ready.eq(ends_row),
            is_last_row.eq(row + 1 == operation.rows),
            self.i_operation.ready.eq(ends_row & is_last_row),
            chains.valid.eq(self.i.valid & can_enter),
            chains.operation.eq(operation), chains.row.eq(self.i_row.payload),
            chains.beat.eq(self.i.payload), chains.enable.eq(moves),
            self.o.valid.eq(chains.o.valid), self.o.payload.eq(chains.o.payload),
        ]
        with m.If(ends_row):
            m.d.sync += row.eq(Mux(is_last_row, 0, row + 1))
        return m
