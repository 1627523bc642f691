"""The queue of rows between the first pass and the second."""

from amaranth.hdl import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, register_like
from .softmax_layouts import KEY_WIDTH, row_info

__all__ = ["ROW_QUEUE", "RowQueue", "counted"]

ROW_QUEUE = 16  # rows
HEAD_WIDTH = 9  # highest bits of a key: its sign, and the widest exponent


def counted(number, up, down, up_too=None):
    """The number, one more if ``up``, one more if ``up_too``, and one less if ``down``."""
    up_too = Const(0, 1) if up_too is None else up_too
    return add(number, Cat(down ^ up_too, (down & ~up_too).replicate(len(number) - 1)), up)


class RowQueue(wiring.Component):
    """Holds up to ``ROW_QUEUE`` rows.

    Parameters
    ----------
    lanes, max_beats : int
        Of `row_info`.

    Members
    -------
    i : In(stream of row_info(lanes, max_beats), always ready)
        A row, if there is room: who sends has to count.
    row : Out(row_info(lanes, max_beats)), has_row : Out(1)
        The first of those that are there, and whether there is one.
    ends : In(1)
        Go on to the next.

    Timing
    ------
    A row is there one cycle after it came; a new one each cycle. Of ``row`` what is needed at once
    (whether a beat is its last, the exponent) comes from registers, which take what is next in the
    memory, or what comes when nothing is. The rest is read from LUT RAM.
    """

    def __init__(self, *, lanes, max_beats):
        self.shape = row_info(lanes, max_beats)
        super().__init__({
            "i": In(stream.Signature(self.shape, always_ready=True)),
            "row": Out(self.shape), "has_row": Out(1), "ends": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i.payload, self.row
        split = KEY_WIDTH - HEAD_WIDTH
        # Pairs of what comes and what goes out.
        early = [(i.key[split:], o.key[split:]),
                 *((i[name], o[name]) for name in ("kind", "beats", "hidden"))]
        late = [(i.key[:split], o.key[:split]),
                *((i[name], o[name]) for name in ("result", "count", "adds", "fresh"))]

        end = Signal(range(ROW_QUEUE))
        begin = Signal(range(ROW_QUEUE))
        second = Signal(range(ROW_QUEUE), init=1)
        rows = Signal(range(ROW_QUEUE + 1))
        has_more = Signal()
        m.d.comb += [self.has_row.eq(rows.any()), has_more.eq(rows[1:].any())]
        m.d.sync += rows.eq(counted(rows, self.i.valid, self.ends))
        with m.If(self.i.valid):
            m.d.sync += end.eq(end + 1)
        with m.If(self.ends):
            m.d.sync += [begin.eq(second), second.eq(second + 1)]

        m.d.comb += Cat(out for _, out in late).eq(self._memory(m, "late", late, end, begin))
        found = self._memory(m, "early", early, end, second)
        head = register_like(found)
        with m.If(self.ends | ~self.has_row):
            m.d.sync += head.eq(Mux(has_more, found, Cat(value for value, _ in early)))
        m.d.comb += Cat(out for _, out in early).eq(head)
        return m

    def _memory(self, m, name, pairs, end, place):
        """A memory of these values of all rows, read at a place."""
        values = Cat(value for value, _ in pairs)
        m.submodules[name] = rows = memory.Memory(
            shape=unsigned(len(values)), depth=ROW_QUEUE, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.d.comb += [write.en.eq(self.i.valid), write.addr.eq(end), write.data.eq(values),
                     read.addr.eq(place)]
        return read.data
