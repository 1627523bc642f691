"""Verilog models of the primitives that a target instantiates, for simulation."""

from importlib import resources
from pathlib import Path

from .config import Configuration

__all__ = ["models"]


def models(config: Configuration) -> list[Path]:
    """The files that a simulation of the configuration's Verilog needs beside it."""
    if config.target == "generic":
        return []
    return [Path(str(resources.files(__package__))) / "models" / f"{config.target}.v"]
