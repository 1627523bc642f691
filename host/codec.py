"""The golden model of the zero-compression engine: one bit stream for a tensor (docs/zce.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..hdl.formats import FORMATS, Format
from .errors import CodecError
