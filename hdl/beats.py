"""From elements to the beats of a unit, and back."""

from amaranth.hdl import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import register
from .machine_layouts import Command
from .movers import ELEMENT, QUEUE_DEPTH

__all__ = ["BeatJoiner", "BeatQueue", "BeatSplitter", "Meeting", "joined"]


def joined(numbers):
    """Elements of a row at one place: as many as a beat has in each lane, and ``last``."""
    return data.StructLayout({"data": data.ArrayLayout(32, numbers), "last": 1})


class BeatJoiner(wiring.Component):
    """Gathers the elements of a row into beats.

    Parameters
    ----------
    shape : data.StructLayout
        The beat's: ``row_beat`` or one like it.
    fields : sequence of str
        Its arrays of elements.
    lanes : int
        Elements of a full beat in each of them.

    Members
    -------
    i : In(stream of joined(len(fields)))
    o : Out(stream of shape)
        Combinational from ``i``, with which a beat is full or its row at its end.

    Timing
    ------
    One place of a row per cycle.
    """

    def __init__(self, shape, *, fields, lanes):
        self.fields, self.lanes = tuple(fields), lanes
        super().__init__({
            "i": In(stream.Signature(joined(len(fields)))), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        lanes, beat, new = self.lanes, self.o.payload, self.i.payload
        count = Signal(range(lanes + 1))
        ends_beat = new.last | (count == lanes - 1)
        kept = [register(data.ArrayLayout(32, lanes), name=f"kept_{name}") for name in self.fields]
        m.d.comb += [
            self.o.valid.eq(self.i.valid & ends_beat),
            self.i.ready.eq(self.o.ready | ~ends_beat),
            beat.count.eq(count + 1), beat.last.eq(new.last),
        ]
        for number, name in enumerate(self.fields):
            for lane in range(lanes):
                is_here = count == lane
                m.d.comb += beat[name][lane].eq(Mux(is_here, new.data[number], kept[number][lane]))
                with m.If(self.i.valid & is_here):
                    m.d.sync += kept[number][lane].eq(new.data[number])
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += count.eq(Mux(ends_beat, 0, count + 1))
        return m


class BeatSplitter(wiring.Component):
    """Gives the elements of beats, one by one.

    Parameters
    ----------
    shape : data.StructLayout
        The beat's: ``row_beat``.
    lanes : int
        Elements of a full beat.

    Members
    -------
    i : In(stream of shape)
        Each with one element or more.
    o : Out(stream of 32 bits)
        Combinational from ``i``.
    """

    def __init__(self, shape, *, lanes):
        self.lanes = lanes
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(32))})

    def elaborate(self, platform):
        m = Module()
        lane = Signal(range(self.lanes + 1))
        ends_beat = lane + 1 == self.i.payload.count
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.eq(self.i.payload.elements[lane]),
            self.i.ready.eq(self.o.ready & ends_beat),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += lane.eq(Mux(ends_beat, 0, lane + 1))
        return m


class Meeting(wiring.Component):
    """Joins elements that come each by their own way, where the command says so.

    Members
    -------
    i : In(stream of ELEMENT), ``numbers`` times
        The first says where rows end.
    uses : In(numbers - 1)
        Which of the others come along; of those that do not, the element is 0.
    o : Out(stream of joined(numbers))
    """

    def __init__(self, *, numbers):
        self.numbers = numbers
        super().__init__({
            "i": In(stream.Signature(ELEMENT)).array(numbers),
            **({"uses": In(numbers - 1)} if numbers > 1 else {}),
            "o": Out(stream.Signature(joined(numbers)))})

    def elaborate(self, platform):
        m = Module()
        uses = Cat(Const(1, 1), self.uses) if self.numbers > 1 else Const(1, 1)
        m.d.comb += [
            self.o.valid.eq(Cat(i.valid | ~use for i, use in zip(self.i, uses, strict=True)).all()),
            self.o.payload.last.eq(self.i[0].payload.last),
        ]
        for number, (i, use) in enumerate(zip(self.i, uses, strict=True)):
            m.d.comb += [
                self.o.payload.data[number].eq(Mux(use, i.payload.data, 0)),
                i.ready.eq(self.o.valid & self.o.ready & use),
            ]
        return m


class BeatQueue(wiring.Component):
    """Elements that come each by their own way become beats, in a queue.

    Parameters
    ----------
    shape, fields, lanes
        As of the ``BeatJoiner``.

    Members
    -------
    i : In(stream of ELEMENT), one for each field
    command, start
        A MOVE of the first one: ``with_q`` and ``with_t`` say which others come with it.
    o : Out(stream of shape)
    ahead : Out(1)
        There are two beats, or more.

    Timing
    ------
    One place of a row per cycle.
    """

    def __init__(self, shape, *, fields, lanes):
        self.fields, self.lanes = tuple(fields), lanes
        super().__init__({
            "i": In(stream.Signature(ELEMENT)).array(len(fields)),
            "command": In(Command), "start": In(1),
            "o": Out(stream.Signature(shape)), "ahead": Out(1)})

    def elaborate(self, platform):
        m = Module()
        shape, numbers = self.o.payload.shape(), len(self.fields)
        m.submodules.meeting = meeting = Meeting(numbers=numbers)
        m.submodules.joiner = joiner = BeatJoiner(shape, fields=self.fields, lanes=self.lanes)
        m.submodules.queue = queue = fifo.SyncFIFO(
            width=Shape.cast(shape).width, depth=QUEUE_DEPTH)
        for outside, inside in zip(self.i, meeting.i, strict=True):
            wiring.connect(m, wiring.flipped(outside), inside)
        wiring.connect(m, meeting.o, joiner.i)
        if numbers > 1:
            with m.If(self.start):
                m.d.sync += meeting.uses.eq(Cat(self.command.with_q, self.command.with_t))
        m.d.comb += [
            queue.w_data.eq(joiner.o.payload), joiner.o.ready.eq(queue.w_rdy),
            queue.w_en.eq(joiner.o.valid & joiner.o.ready),
            Value.cast(self.o.payload).eq(queue.r_data), self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.valid & self.o.ready),
            self.ahead.eq(queue.level >= 2),
        ]
        return m
