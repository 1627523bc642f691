"""A unit in the machine: frozen while words are missing, its results in queues."""

from amaranth.hdl import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .gate import COUNT_WIDTH, Gate
from .geometry import TARGETS
from .movers import QUEUE_DEPTH

__all__ = ["Shell"]


class Shell(wiring.Component):
    """Holds a unit between its streams, which it never lets see a stall (``Gate``).

    Parameters
    ----------
    unit : wiring.Component
        With streams, the outgoing ones named ``o`` or ``o_...``.
    begins : str
        Its input whose first words begin the count of cycles.
    target : str
        How it is frozen: ``"generic"``: every register of the unit is told; ``"ecp5"``: its clock
        is held by a DCCA (FPGA-TN-02200, dynamic clock control), which costs no logic and reaches
        the registers within primitives, too.

    Members
    -------
    reset : In(1)
        Of everything.
    the unit's streams
    supplied : In(1) each, named ``supplied_`` and the input stream
        As in ``Gate``.
    go, halt, keep, running, stalls, cycles
        The gate's.

    Timing
    ------
    Results come out of a queue, a cycle or more behind.
    """

    def __init__(self, unit, *, begins, target="generic"):
        if target not in TARGETS:
            raise ValueError(f"target is one of {TARGETS}; got {target!r}")
        self.unit, self.begins, self.target = unit, begins, target
        streams = {name: member for name, member in unit.signature.members.items()
                   if member.is_signature and isinstance(member.signature, stream.Signature)}
        self.inputs = tuple(name for name in streams if not name.startswith("o"))
        self.outputs = tuple(name for name in streams if name.startswith("o"))
        super().__init__({
            **streams, **{f"supplied_{name}": In(1) for name in self.inputs},
            "reset": In(1), "go": In(1), "halt": In(1), "keep": In(1),
            "running": Out(1), "stalls": Out(1),
            "cycles": Out(COUNT_WIDTH)})

    def elaborate(self, platform):
        m = Module()
        unit = self.unit
        gate = Gate(streams=len(self.inputs) + len(self.outputs))
        m.submodules.gate = ResetInserter(self.reset)(gate)
        enable = gate.enable
        m.submodules.unit = self._frozen(m, enable)
        for name in self.inputs:
            outside, inside = getattr(self, name), getattr(unit, name)
            m.d.comb += [
                inside.valid.eq(outside.valid), inside.payload.eq(outside.payload),
                outside.ready.eq(inside.ready & enable),
            ]
        room = []
        for name in self.outputs:
            outside, inside = getattr(self, name), getattr(unit, name)
            queue = fifo.SyncFIFO(width=Shape.cast(inside.payload.shape()).width, depth=QUEUE_DEPTH)
            m.submodules[f"{name}_queue"] = ResetInserter(self.reset)(queue)
            m.d.comb += [
                queue.w_data.eq(inside.payload), queue.w_en.eq(inside.valid & enable),
                inside.ready.eq(1),
                Value.cast(outside.payload).eq(queue.r_data), outside.valid.eq(queue.r_rdy),
                queue.r_en.eq(outside.valid & outside.ready),
            ]
            room.append(queue.level <= QUEUE_DEPTH - 3)
        first = getattr(unit, self.begins)
        m.d.comb += [
            gate.supplied.eq(Cat(*(getattr(self, f"supplied_{name}") for name in self.inputs),
                                 *room)),
            gate.begins.eq(first.valid & first.ready), gate.gives.eq(unit.o.valid),
            gate.go.eq(self.go), gate.halt.eq(self.halt), gate.keep.eq(self.keep),
            self.running.eq(gate.running),
            self.stalls.eq(gate.stalls), self.cycles.eq(gate.cycles),
        ]
        return m

    def _frozen(self, m, enable):
        """The unit, which moves only where it may."""
        if self.target == "generic":
            return ResetInserter(self.reset)(EnableInserter(enable)(self.unit))
        gated = ClockDomain("gated", local=True)
        m.domains += gated
        m.submodules.clock = Instance(
            "DCCA", i_CLKI=ClockSignal(), i_CE=enable | self.reset, o_CLKO=gated.clk)
        m.d.comb += gated.rst.eq(ResetSignal() | self.reset)
        return DomainRenamer("gated")(self.unit)
