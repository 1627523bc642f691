"""How verbs answer: lines, tables, numbered steps with their times, JSON, errors in sentences."""

import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click

from ...gen.errors import ConfigurationError, ExactumError, ToolMissing, UsageError

__all__ = ["Output", "configured", "verb"]

# Which extra brings a package that the core does without.
_EXTRAS = {"torch": "host", "numpy": "host", "jinja2": "host", "matplotlib": "host",
           "serial": "host", "cobs": "host",
           "cocotb": "sim", "cocotb_tools": "sim", "sklearn": "demo"}


class Output:
    """Where a verb writes; with ``json`` only ``result`` prints, with ``quiet`` only tables."""

    def __init__(self, *, as_json: bool, verbose: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet

    def line(self, text: str = "") -> None:
        """Print a line of information."""
        if not self.as_json and not self.quiet:
            click.echo(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: drawn on a terminal, aligned columns elsewhere."""
        if self.as_json:
            return
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
            drawn = Table(*columns)
            for row in rows:
                drawn.add_row(*map(Text, row))
            Console().print(drawn)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())

    def steps(self, total: int) -> Callable[[str], AbstractContextManager[None]]:
        """A counter of steps: ``with step("name"):`` prints ``[3/7] name ... 4.1 s``."""
        count = iter(range(1, total + 1))

        @contextmanager
        def step(name: str) -> Iterator[None]:
            head = f"[{next(count, total)}/{total}] {name} ... "
            live = sys.stdout.isatty() and not (self.as_json or self.quiet)
            if live:
                click.echo(head, nl=False)
            start = time.perf_counter()
            try:
                yield
            except BaseException:
                self.line("failed" if live else f"{head}failed")
                raise
            took = f"{time.perf_counter() - start:.1f} s"
            self.line(took if live else head + took)

        return step

    def result(self, value: Any) -> None:
        """Print the outcome as JSON, if that was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))

    def failure(self, error: ExactumError) -> None:
        """Print an error: a sentence and the next step, with the traceback if ``verbose``."""
        if self.verbose:
            traceback.print_exception(error)
        if self.as_json:
            problems = error.problems if isinstance(error, ConfigurationError) else ()
            self.result({"error": {
                "code": error.code, "message": error.message, "next": error.hint,
                "problems": [vars(problem) for problem in problems]}})
        else:
            click.echo(str(error), err=True)


def verb(function: Callable[..., int | None]) -> Callable[..., int]:
    """The common options, and errors as sentences with their exit code.

    The function gets an ``Output`` first and returns its exit code (None: 0).
    """
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more; show tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
    @functools.wraps(function)
    def command(*, as_json: bool, verbose: bool, quiet: bool, **options: Any) -> int:
        output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
        try:
            return function(output, **options) or 0
        except ExactumError as error:
            found = error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            found = ToolMissing("X303", f"the Python package {package} is not installed",
                                f"pip install 'exactum[{_EXTRAS[package]}]'")
            found.__cause__ = error
        except BrokenPipeError:
            raise  # click and main leave quietly
        except OSError as error:
            found = UsageError("X114", f"{str(error.filename)!r} cannot be used: {error.strerror}",
                               "choose another path or correct its permissions")
            found.__cause__ = error
        output.failure(found)
        return found.exit_code

    return command


def configured(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options ``-c`` and ``-s``; the function gets the loaded ``config``.

    Where the verb takes ``units`` as arguments, an argument may be the configuration instead.
    """
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("-c", "--config", "source", metavar="PRESET|FILE",
                      help=f"Preset or TOML file.  [default: {default}]")
        @click.option("-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE",
                      help="Override one key, for example vpcu.lanes=16. Repeatable.")
        @functools.wraps(function)
        def command(output: Output, *, source: str | None, overrides: tuple[str, ...],
                    **options: Any) -> Any:
            from ...gen.config import load
            sources = [source] if source else []
            if "units" in options:
                named, options["units"] = _sorted_words(options["units"])
                sources += named
            if len(sources) > 1:
                raise UsageError("X115", f"one configuration is wanted; got {', '.join(sources)}",
                                 "name one preset or file")
            config = load(sources[0] if sources else default, overrides)
            return function(output, config=config, **options)
        return command
    return decorate


def _sorted_words(words: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The configurations (presets, files) and the other words, which name units."""
    from ...gen.config import PRESETS
    from ...gen.units import SYSTEMS, UNITS

    def is_configuration(word: str) -> bool:
        return word in PRESETS or (word not in {**UNITS, **SYSTEMS} and (
            "." in word or "/" in word or os.sep in word or os.path.isfile(word)))

    named = [word for word in words if is_configuration(word)]
    return named, tuple(word for word in words if word not in named)
