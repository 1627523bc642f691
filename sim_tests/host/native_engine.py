"""The compiled engines that tests share: two lanes of the default preset, and eight narrow ones."""

from functools import cache

from exactum.gen.config import preset
from exactum.host.native import NativeUnit
from exactum.host.native_engine import NativeEngine
from sim_tests.repository import ROOT

__all__ = ["CONFIG", "FOLDER", "MANY_LANES", "engine"]

CONFIG = preset("default").replace({"vpcu.lanes": 2})
MANY_LANES = CONFIG.replace({
    "vpcu.lanes": 8, "vpcu.formats": ["e4m3"], "vpcu.accumulator_width": 48, "vpcu.max_k": 2048,
    "vpcu.scale_block": 0, "vpcu.b_depth": 256})
FOLDER = ROOT / "build" / "native"


@cache
def engine(config=CONFIG):
    """The engine, kept between tests of one process and compiled once for all of them."""
    return NativeEngine(config, NativeUnit.of("engine", config, FOLDER))
