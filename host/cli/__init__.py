"""The command line ``exactum VERB``.

Each verb lives in a module of its own, imported only when it is used: ``exactum --help`` answers at
once and needs nothing but click.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import click

__all__ = ["VERBS", "main"]

# Verb -> the line shown by --help. `exactum VERB` runs `command` of the module VERB beside this.
VERBS = {
    "new": "Write a configuration to start from.",
    "check": "Validate a configuration and show what it resolves to.",
    "explain": "Explain an error code or a configuration key.",
    "doctor": "Each tool with its version, what it is for and what to do.",
    "devices": "What can be opened: emulator, compiled RTL, serial ports.",
    "selftest": "Vectors of every unit through a device, against the emulator.",
    "serve": "A device's RTL behind a pseudo terminal, as if a board were there.",
    "generate": "Write Verilog, port descriptions and a manifest.",
    "sim": "Run the cocotb benches on the generated Verilog.",
    "synth": "Area and clock on an ECP5: synthesis, place and route.",
    "demo": "The tour: train a network with its products offloaded.",
    "verify": "Check the files of an output folder against its manifest.",
}


class _Verbs(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return import_module(f"{__name__}.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]
                        ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from ...gen.errors import nearest
            raise click.UsageError(f"there is no verb {args[0]!r}{nearest(args[0], VERBS)}; "
                                   f"verbs: {', '.join(VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]},
             subcommand_metavar="VERB [OPTIONS]", no_args_is_help=True)
@click.version_option(version("exactum"), message="exactum %(version)s")
def _exactum() -> None:
    """Exact dot products in hardware: Verilog, simulation and PyTorch offload from one file.

    Start with `exactum doctor`, then `exactum demo`. Exit codes: 0 fine, 1 the result is bad,
    2 usage or configuration, 3 a tool is missing, 4 device or link.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = _exactum.main(arguments, prog_name="exactum", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; spare Python's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was there before is unchanged", err=True)
        code = 130
    sys.exit(code)
