"""Where this checkout is, and how tests run Python and the command line in a clean process."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "python"]

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments, cwd=None, **environment):
    """Run this Python with arguments; returns the finished process with its text."""
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, text=True,
                          capture_output=True, timeout=300, check=False,
                          env=os.environ | environment)
