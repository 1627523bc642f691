"""A component's ports and parameters as plain data, for JSON, benches and drivers."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib import data, enum, stream, wiring

from ..hdl.formats import Format
from .config import Configuration
from .units import Unit

__all__ = ["describe"]


def describe(unit: Unit, component: wiring.Component, config: Configuration) -> dict[str, Any]:
    """The description of one generated unit.

    ``ports`` lists the Verilog ports (name, direction, width, signed) with the stream they belong
    to; ``streams`` gives for each stream its three ports and the fields of its payload (name,
    offset from bit 0, width, signed, and the values of an enumeration).
    """
    signature = component.signature
    ports = [{"name": "clk", "direction": "in", "width": 1, "signed": False, "stream": None},
             {"name": "rst", "direction": "in", "width": 1, "signed": False, "stream": None}]
    streams: dict[str, Any] = {}
    for path, member in _streams(signature.members):
        name = "__".join(path)
        payload = member.signature.members["payload"].shape
        streams[name] = {
            # A stream of an input signature brings its payload in.
            "direction": "in" if member.flow is wiring.In else "out",
            "payload": f"{name}__payload", "valid": f"{name}__valid", "ready": f"{name}__ready",
            "width": Shape.cast(payload).width, "fields": list(_fields(payload)),
        }
    for path, member, value in signature.flatten(component):
        shape = Shape.cast(value.shape())
        name = "__".join(map(str, path))
        if shape.width:
            ports.append({
                "name": name, "direction": "in" if member.flow is wiring.In else "out",
                "width": shape.width, "signed": shape.signed,
                "stream": next((s for s in streams if name.startswith(f"{s}__")), None)})
    return {
        "description": 1, "exactum": version("exactum"), "unit": unit.name, "module": unit.top,
        "summary": unit.summary,
        "configuration": {"name": config.name, "hash": config.hash},
        "parameters": {name: _plain(value) for name, value in unit.parameters(config).items()},
        "clock": "clk", "reset": "rst", "ports": ports, "streams": streams,
    }


def _streams(members: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple]:
    for name, member in members.items():
        if isinstance(member, wiring.Member) and member.is_signature and not member.dimensions:
            if isinstance(member.signature, stream.Signature):
                yield (*path, name), member
            else:
                yield from _streams(member.signature.members, (*path, name))


def _fields(shape: Any, name: str = "", offset: int = 0) -> Iterator[dict[str, Any]]:
    """The leaves of a layout, low to high; a shape without fields is one leaf without a name."""
    structured = isinstance(shape, type) and issubclass(shape, data.Struct | data.Union)
    layout = data.Layout.cast(shape) if structured else shape
    if isinstance(layout, data.Layout):
        for key, field in layout:
            inner = f"{name}.{key}" if name else str(key)
            yield from _fields(field.shape, inner, offset + field.offset)
        return
    cast = Shape.cast(layout)
    leaf = {"name": name, "offset": offset, "width": cast.width, "signed": cast.signed}
    if isinstance(layout, enum.EnumType) and isinstance(layout, ShapeCastable):
        leaf["values"] = {item.name: item.value for item in layout}
    yield leaf


def _plain(value: Any) -> Any:
    if isinstance(value, Format):
        return value.name
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
