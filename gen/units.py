"""The table of units: which component each is, and its parameters out of a configuration."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import UsageError, nearest
from .rules import bit_cycles

if TYPE_CHECKING:
    from .config import Configuration

__all__ = ["SYSTEMS", "UNITS", "Unit", "build", "select"]


@dataclass(frozen=True)
class Unit:
    """One unit: the component ``hdl.<name>.<component>`` and what it does.

    Parameters
    ----------
    name : str
        Name of the unit, of its module in hdl/ and of its bench.
    component : str
        Name of the class.
    summary : str
        What it does, in a few words.
    parameters : callable
        From the configuration to the constructor's keyword arguments.
    """

    name: str
    component: str
    summary: str
    parameters: Callable[["Configuration"], Mapping[str, Any]]

    @property
    def top(self) -> str:
        """Name of the Verilog module."""
        return f"exactum_{self.name}"


def _vpcu(config: "Configuration") -> dict[str, Any]:
    names = ("lanes", "accumulator_width", "max_k", "b_depth", "drains", "scale_block")
    return {"formats": config.vpcu.format_objects, "target": config.target,
            **{name: getattr(config.vpcu, name) for name in names}}


def _codec(config: "Configuration") -> dict[str, Any]:
    return {"block": config.zce.block, "target": config.target}


def _skipper(config: "Configuration") -> dict[str, Any]:
    return {"block": config.zce.block, "max_k": config.vpcu.max_k,
            "scale_block": config.vpcu.scale_block}


def _softmax(config: "Configuration") -> dict[str, Any]:
    return {**config.softmax.model_dump(), "target": config.target}


def _elementwise(config: "Configuration") -> dict[str, Any]:
    return {**config.elementwise.model_dump(), "target": config.target}


def _machine(config: "Configuration") -> dict[str, Any]:
    return {"engine": _vpcu(config), "softmax": _softmax(config),
            "elementwise": _elementwise(config), "codec": _codec(config),
            "memory_words": config.device.memory_words, "hash": config.hash}


def _device(config: "Configuration") -> dict[str, Any]:
    return {"bit_cycles": bit_cycles(config.clock_mhz, config.device.baud),
            "machine": _machine(config)}


UNITS = MappingProxyType({unit.name: unit for unit in (
    Unit("engine", "Engine", "matrix products: the VPCU behind its zero skipper", _vpcu),
    Unit("vpcu", "Vpcu", "exact row products on lanes of four multipliers", _vpcu),
    Unit("skipper", "Skipper", "non-zero elements of a row, one per cycle", _skipper),
    Unit("compressor", "Compressor", "blocks of values to flag, mask and non-zeros", _codec),
    Unit("decompressor", "Decompressor", "flag, mask and non-zeros to blocks of values", _codec),
    Unit("softmax", "Softmax", "softmax over rows, independent of their order", _softmax),
    Unit("elementwise", "Elementwise", "difference, product, difference on rows, in fp32",
         _elementwise),
)})

"""The units that compute, each with a bench."""

SYSTEMS = MappingProxyType({unit.name: unit for unit in (
    Unit("machine", "Machine", "all units, a scratch memory and a sequencer", _machine),
    Unit("device", "Device", "the machine behind a serial port: the top level", _device),
    Unit("serial_line", "SerialLine", "a device at the end of a wire, for simulation", _device),
)})
"""What is made of the units."""


def select(names: Iterable[str] | None, *, systems: bool = False) -> tuple[Unit, ...]:
    """The named units in the table's order, all of UNITS for None; UsageError X213 otherwise.

    With ``systems`` those of SYSTEMS may be named, too.
    """
    known = {**UNITS, **(SYSTEMS if systems else {})}
    wanted = set(UNITS if names is None else names)
    for name in sorted(wanted - set(known)):
        hint = "exactum sim --list says what each does"
        if name in SYSTEMS:
            hint = f"exactum generate {name} writes its Verilog"
        raise UsageError("X213", f"no unit is called {name!r}{nearest(name, known)}; "
                         f"units: {', '.join(known)}", hint)
    return tuple(unit for unit in known.values() if unit.name in wanted)


def build(unit: Unit, config: "Configuration") -> Any:
    """A new component of the unit."""
    module = import_module(f"..hdl.{unit.name}", __package__)
    return getattr(module, unit.component)(**unit.parameters(config))
