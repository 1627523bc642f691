"""The compiled engine that tests share: two lanes of the default preset, compiled once."""

from functools import cache

from exactum.gen.config import preset
from exactum.host.native import NativeUnit
from exactum.host.native_engine import NativeEngine
from sim_tests.repository import ROOT

__all__ = ["CONFIG", "FOLDER", "engine"]

CONFIG = preset("default").replace({"vpcu.lanes": 2})
FOLDER = ROOT / "build" / "native"


@cache
def engine():
    """The engine, kept between tests of one process and compiled once for all of them."""
    return NativeEngine(CONFIG, NativeUnit.of("engine", CONFIG, FOLDER))
