"""The configuration: frozen models, the rules over several keys, and loading from TOML.

A configuration comes from a preset or a TOML file (``schema = 1``, ``extends = "preset"``), and
from overrides (``vpcu.lanes=16``). Every problem is reported at once; no value is adjusted.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ..hdl.formats import FORMATS, Format
from ..hdl.geometry import TARGETS
from .errors import ConfigurationError, Problem, nearest
from .rules import broken_rules
from .sources import Source, read_overrides, read_toml

__all__ = ["EXTENDS", "PRESETS", "Configuration", "Device", "Elementwise", "Softmax", "Vpcu", "Zce",
           "allowed", "fields", "load", "preset", "schema"]

PRESETS = ("tiny", "small", "default")
SCHEMA_VERSION = 1
EXTENDS = "Preset that gives every key not stated here."

_NEW = "exactum new FILE.toml writes a configuration to start from"


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("not a power of two")
    return value


def _distinct(values: tuple) -> tuple:
    if len(set(values)) != len(values):
        raise ValueError("a value is given twice")
    return values


def _integer(value: Any) -> Any:
    # For Python True and 1.0 equal 1; a file says what it means.
    if type(value) is not int:
        raise ValueError("not an integer")
    return value


PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]
FormatName = Literal["e4m3", "e5m2", "fp16", "bf16", "fp32"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Vpcu(_Model):
    """The row-product engine."""

    lanes: int = Field(
        ge=1, le=64, description="Lanes of the engine: each takes a 64-bit word of B per cycle, "
        "four 8- or 16-bit columns or one fp32 column.")
    formats: Annotated[tuple[FormatName, ...], AfterValidator(_distinct)] = Field(
        min_length=1, description="Number formats that operands and results may have.")
    accumulator_width: int = Field(
        ge=24, le=256, description="Bits of each accumulator, W of rule N4 in docs/numerics.md.")
    max_k: PowerOfTwo = Field(
        ge=64, le=32768, description="Longest dot product.")
    b_depth: PowerOfTwo = Field(
        ge=64, le=32768, description="Rows that each of the two banks of the B tile holds.")
    drains: PowerOfTwo = Field(
        ge=1, le=1, description="Results rounded and emitted per cycle.")
    scale_block: Literal[0, 16, 32, 64] = Field(
        description="Elements along K that share a power-of-two scale (E8M0), 32 in OCP MX; "
        "0: no scales.")

    @property
    def format_objects(self) -> tuple[Format, ...]:
        """The enabled formats, from the one table."""
        return tuple(FORMATS[name] for name in self.formats)


class Zce(_Model):
    """The zero-compression engine: skipper, compressor and decompressor."""

    block: PowerOfTwo = Field(
        ge=64, le=64, description="Elements that one mask covers.")


class Softmax(_Model):
    """The softmax unit."""

    lanes: PowerOfTwo = Field(
        ge=1, le=16, description="Elements taken in and given out per cycle.")
    max_length: PowerOfTwo = Field(
        ge=16, le=16384, description="Longest row, in elements.")
    exp_entries: PowerOfTwo = Field(
        ge=2048, le=16384, description="Entries of the table of e^-x.")
    reciprocal_entries: PowerOfTwo = Field(
        ge=2048, le=16384, description="Entries of the table of reciprocals.")
    value_width: int = Field(
        ge=18, le=22, description="Bits of both tables' values; one multiplier takes 18.")
    logarithms: bool = Field(
        description="Whether each row's maximum and the logarithm of its sum come out as well.")


class Elementwise(_Model):
    """The elementwise unit."""

    lanes: PowerOfTwo = Field(
        ge=1, le=16, description="Elements taken in and given out per cycle.")


class Device(_Model):
    """The machine around the units, and its link."""

    memory_words: PowerOfTwo = Field(
        ge=512, le=65536, description="64-bit words of the scratch memory.")
    baud: int = Field(
        ge=9600, le=50_000_000, description="Bits per second of the serial port.")


class Configuration(_Model):
    """All of a design's parameters; frozen, hashable by content, and equal when its values are."""

    schema_version: Annotated[Literal[1], BeforeValidator(_integer)] = Field(
        alias="schema", description="Version of this file's format.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$",
        description="Name shown in headers and reports; the file's name without its ending unless "
        "given. A preset with overrides is called PRESET-custom.")
    clock_mhz: float = Field(
        gt=0, le=1000, description="Target clock in MHz, by which cycles become seconds.")
    target: Literal["generic", "ecp5"] = Field(
        description="What multipliers, adders and memories are made of: inferred from plain "
        "Verilog, or an ECP5's primitives. Ports, cycles and results are the same.")
    vpcu: Vpcu = Field(description="The row-product engine.")
    zce: Zce = Field(description="The zero-compression engine.")
    softmax: Softmax = Field(description="The softmax unit.")
    elementwise: Elementwise = Field(description="The elementwise unit.")
    device: Device = Field(description="The machine around the units, and its link.")

    @model_validator(mode="after")
    def _check_rules(self) -> "Configuration":
        problems = list(broken_rules(self.model_dump(by_alias=True), frozenset()))
        if problems:
            raise ConfigurationError(problems)
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved values, as hexadecimal: the same on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The resolved values as canonical JSON."""
        values = self.model_dump(mode="json", by_alias=True)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def to_toml(self) -> str:
        """The resolved values as a TOML file that ``load`` reads back to an equal object."""
        values = self.model_dump(mode="json", by_alias=True)
        tables = {key: values.pop(key) for key in list(values) if isinstance(values[key], dict)}
        blocks = [_toml_lines(values)]
        blocks += [f"[{name}]\n{_toml_lines(table)}" for name, table in tables.items()]
        return "\n".join(blocks)

    def replace(self, changes: Mapping[str, Any]) -> "Configuration":
        """A copy with dotted keys changed, ``{"vpcu.lanes": 2}``, checked like a file."""
        values = self.model_dump(mode="json", by_alias=True)
        return _validate([Source("", values), Source("", _nested(changes))])


def _toml_lines(values: Mapping[str, Any]) -> str:
    # A JSON string, number or list of them is the same text in TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
                   for key, value in values.items())


def fields() -> dict[str, Any]:
    """Every key, dotted, in order, with pydantic's description of its field."""
    found: dict[str, Any] = {}
    for name, field in Configuration.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= {f"{name}.{key}": value for key, value in inner.model_fields.items()}
        else:
            found[field.alias or name] = field
    return found


def _bounds(field: Any) -> tuple[Any, Any]:
    found = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le")
             if hasattr(item, key)}
    return found.get("ge", found.get("gt")), found.get("le")


def allowed(key: str) -> str:
    """The legal values of a key, in words."""
    if key == "schema":
        return str(SCHEMA_VERSION)
    if key == "name":
        return ("a string of at most 64 characters out of A-Z, a-z, 0-9, space and . _ + -, "
                "a letter or digit first")
    if key == "vpcu.formats":
        return f"a list of distinct names out of {', '.join(FORMATS)}"
    field = fields()[key]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(field.annotation)))
    if field.annotation is bool:
        return "true or false"
    low, high = _bounds(field)
    if field.annotation is float:
        return f"a number above {low} and up to {high}"
    kind = "a power of two" if _is_power(field) else "an integer"
    return str(low) if low == high else f"{kind} from {low} to {high}"


def _is_power(field: Any) -> bool:
    return any(getattr(item, "func", None) is _power_of_two for item in field.metadata)


def _nearest_value(key: str, value: Any) -> str:
    field = fields()[key]
    low, high = _bounds(field)
    if low is None or not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    legal = min(max(value, low), high)
    if field.annotation is float:
        return f"; the nearest is {high}" if value > high else ""
    legal = round(legal)
    if _is_power(field):
        below = 1 << (legal.bit_length() - 1)
        legal = below if legal - below <= 2 * below - legal else 2 * below
    return f"; the nearest is {legal}"


def _field_problem(error: Mapping[str, Any]) -> Problem:
    """One of pydantic's findings in our words."""
    path = [str(part) for part in error["loc"] if not isinstance(part, int)]
    key, seen, kind = ".".join(path[:2]), error["input"], error["type"]
    known = fields()
    if key == "extends":
        return Problem("X104", "`extends` belongs in a file, where it names the preset that the "
                       "file starts from", key)
    if kind == "extra_forbidden":
        inside = [name.rpartition(".")[2] for name in known
                  if name.rpartition(".")[0] == ".".join(path[:-1])]
        if len(path) == 1:
            inside += ["extends", *(name for name in Configuration.model_fields
                                    if name not in known and name != "schema_version")]
        hint = nearest(path[-1], inside) or nearest(key, known)
        return Problem("X104", f"unknown key `{key}`{hint}; known here: {', '.join(inside)}", key)
    if kind == "missing":
        if key == "schema":
            return Problem("X108", f"`schema = {SCHEMA_VERSION}` is missing", key)
        return Problem("X109", f"`{key}` is not given and there is no `extends`", key)
    shown = json.dumps(seen, default=str)
    if key not in known:
        return Problem("X105", f"`{key}` is a table of keys; got {shown}", key)
    if key == "schema":
        return Problem("X108", f"`schema` is {SCHEMA_VERSION} in this release; got {shown}", key)
    wrong_type = kind.endswith("_type") or kind == "int_from_float"
    spelling = ""
    if kind == "literal_error" and isinstance(seen, str):
        spelling = nearest(seen, TARGETS if key == "target" else FORMATS)
    return Problem("X105" if wrong_type else "X106",
                   f"`{key}` is {allowed(key)}; got {shown}{spelling}{_nearest_value(key, seen)}",
                   key)


def _independent(errors: Iterable[Any]) -> Iterator[Any]:
    """pydantic's findings without those that only follow from a bad item of the same list."""
    items = set()
    for error in errors:
        if error["loc"] not in items:
            yield error
        if isinstance(error["loc"][-1], int):
            items.add(error["loc"][:-1])


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *tables, last = key.split(".")
        inner = nested
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[last] = value
    return nested


def _merge(base: Any, change: Any) -> Any:
    if isinstance(change, Mapping):
        below = base if isinstance(base, dict) else {}
        return below | {key: _merge(below.get(key), value) for key, value in change.items()}
    return tuple(change) if isinstance(change, list) else change


def _validate(sources: Iterable[Source], found: Iterable[Problem] = ()) -> Configuration:
    """The sources, later over earlier, as one configuration; or all of its problems.

    With problems already ``found``, keys that are missing are taken to be their consequence.
    """
    layers, problems = list(sources), list(found)
    values: dict[str, Any] = {}
    for layer in layers:
        values = _merge(values, layer.values)
    configuration = None
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        mine = [_field_problem(item) for item in _independent(error.errors())]
        bad = frozenset(problem.key for problem in mine if problem.code != "X104")
        problems += [problem for problem in mine if not (found and problem.code == "X109")]
        problems += broken_rules(values, bad)
    except ConfigurationError as error:
        problems += error.problems
    if configuration is not None and not problems:
        return configuration
    located = sorted((_place(layers, problem) for problem in problems), key=lambda pair: pair[0])
    unique = list(dict.fromkeys(problem for _, problem in located))
    known = fields()
    key = next((problem.key for problem in unique if problem.key in known), None)
    raise ConfigurationError(
        unique, f"exactum explain {key}" if key else "see docs/configuration.md")


def _place(layers: list[Source], problem: Problem) -> tuple[tuple[int, int], Problem]:
    """The problem with the place where its key was last set, and that place as a sort key.

    A broken rule names whichever of its keys was set last.
    """
    keys = problem.keys or (problem.key,)
    places = [(index, line, key) for index, layer in enumerate(layers) for key in keys
              if (line := layer.line(key)) is not None]
    if not places:  # a missing key: the table of a file that it belongs in
        table = problem.key.rpartition(".")[0]
        places = [(index, line, problem.key) for index, layer in enumerate(layers)
                  if layer.is_file and (line := layer.line(table))]
    if places:
        index, line, key = max(places)
        where = f"{layers[index].origin}:{line}" if line else layers[index].origin
        return (index, line), replace(problem, where=where, key=key)
    origin = next((layer.origin for layer in layers if layer.is_file), "")
    return (len(layers), 0), replace(problem, where=problem.where or origin)


def _preset_source(name: str) -> Source:
    text = (resources.files(__package__) / "presets" / f"{name}.toml").read_text("utf-8")
    return Source("", tomllib.loads(text))


def _unknown_preset(name: Any) -> Problem:
    code = "X103" if isinstance(name, str) else "X105"
    return Problem(code, f"presets are {', '.join(PRESETS)}; got {json.dumps(name, default=str)}"
                   f"{nearest(str(name), PRESETS)}", "extends")


def preset(name: str, changes: Mapping[str, Any] | None = None) -> Configuration:
    """A preset of the package, with dotted keys changed if asked: ``{"vpcu.lanes": 2}``."""
    if name not in PRESETS:
        raise ConfigurationError([_unknown_preset(name)], "exactum check default")
    configuration = _validate([_preset_source(name)])
    if not changes:
        return configuration
    return configuration.replace({"name": f"{name}-custom"} | dict(changes))


def load(source: "str | Path | Configuration", overrides: Iterable[str] = ()) -> Configuration:
    """The configuration of a preset's name or a TOML file, with ``KEY=VALUE`` overrides on top.

    Raises
    ------
    ConfigurationError
        With every problem found, each with its place, the value seen and the values allowed.
    """
    changes, problems = read_overrides(overrides)
    if source == "":
        raise ConfigurationError([_unknown_preset("")], _NEW)
    if isinstance(source, Configuration):
        layers = [Source("", source.model_dump(mode="json", by_alias=True))]
    elif isinstance(source, str) and source in PRESETS:
        layers = [_preset_source(source)]
    else:
        layers, more = _file_layers(Path(source))
        problems += more
    if changes:
        name = next(layer.values["name"] for layer in reversed(layers) if "name" in layer.values)
        layers += [Source("", {"name": f"{name}-custom"} if isinstance(name, str) else {}),
                   *changes]
    return _validate(layers, problems)


def _file_layers(path: Path) -> tuple[list[Source], list[Problem]]:
    if not path.suffix and len(path.parts) == 1 and not path.exists():
        raise ConfigurationError([_unknown_preset(str(path))], _NEW)
    own = read_toml(path)
    base = own.values.pop("extends", None)
    layers = [Source("", {"name": path.stem}), own]
    if base is None:
        return layers, []
    if not isinstance(base, str) or base not in PRESETS:
        return layers, [_unknown_preset(base)]
    inherited = _preset_source(base)
    # The version is a statement about the file itself, never inherited.
    del inherited.values["schema"]
    return [inherited, *layers], []


def schema() -> dict[str, Any]:
    """JSON schema of a configuration file, for editors."""
    described = Configuration.model_json_schema(by_alias=True)
    described["title"] = "Exactum configuration"
    described["properties"]["extends"] = {
        "enum": list(PRESETS), "description": EXTENDS}
    for part in (described, *described["$defs"].values()):
        part["required"] = ["schema"] if part is described else []
    return described
