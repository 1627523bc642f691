"""Offload: an ordinary PyTorch training loop with its products and softmaxes on a device.

The function is `exactum.host.offload`; this package holds it and what it works with.
"""

from .policy import Choice, OpContext, Policy, Role, RolePolicy
from .report import Fallback, Report, Row
from .session import Session, offload

__all__ = ["Choice", "Fallback", "OpContext", "Policy", "Report", "Role", "RolePolicy", "Row",
           "Session", "offload"]
