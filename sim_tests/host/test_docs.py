"""The documentation names verbs and options that the command line has."""

import re
import shlex
from importlib import import_module

import click
import pytest

from exactum.host.cli import VERBS
from sim_tests.repository import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command(verb):
    assert verb in VERBS, f"there is no verb {verb!r}"
    return import_module(f"exactum.host.cli.{verb}").command


def lines(text):
    """Every command line in code: blocks line by line, spans whole unless they only name a verb."""
    blocks = r"^```\w*\n(.*?)^```$"
    for block in re.findall(blocks, text, re.M | re.S):
        yield from re.findall(r"^(?:\$ )?exactum +(.*)$", block, re.M)
    yield from re.findall(r"`exactum +([^` ]+ [^`]+)`", re.sub(blocks, "", text, flags=re.M | re.S))


def parse(line):
    verb, *arguments = shlex.split(line, comments=True)
    if not verb.startswith("-") and line != "VERB [OPTIONS]":
        with command(verb).make_context(verb, arguments):
            pass


def test_command_lines_are_found():
    text = "```\nexactum sim small  # comment\n```\n`exactum demo` and `exactum demo --quick`"
    assert list(lines(text)) == ["sim small  # comment", "demo --quick"]
    assert sum(len(list(lines(page.read_text("utf-8")))) for page in PAGES) > 5


@pytest.mark.parametrize("line", ["smi small", "sim --wave-form", "explain", "demo --seed x"])
def test_wrong_lines_are_caught(line):
    with pytest.raises((AssertionError, click.UsageError)):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_in_the_documentation_parse(page):
    for line in lines(page.read_text("utf-8")):
        parse(line)


def test_table_of_verbs_is_complete_and_its_options_exist():
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z]+)(?: ([^`]*))?` \| (.*) \|$", text, re.M)
    assert [verb for verb, *_ in rows] == list(VERBS)
    for verb, usage, does in rows:
        known = {option for parameter in command(verb).params for option in parameter.opts}
        named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", f"{usage} {does}"))
        assert named <= known, f"{verb}: {named - known}"
