"""What the tables of codes and keys say, as help, as a template and as documentation."""

from textwrap import fill
from typing import Any

from .config import EXTENDS, PRESETS, Configuration, allowed, fields, preset
from .errors import CODES, UsageError, nearest
from .rules import RULES
from .sources import at

__all__ = ["configuration_page", "errors_page", "explain", "template"]


def explain(topic: str) -> list[str]:
    """The lines about an error code, a key or a table of keys; UsageError X214 otherwise."""
    code = CODES.get(topic.upper())
    if code:
        return [f"{code.code}: {code.title}", code.explanation]
    known = fields()
    if topic in known:
        values = ", ".join(f"{name} {_shown(_values(name), topic)}" for name in PRESETS)
        rules = [rule.text.replace("`", "") for rule in RULES if topic in rule.keys]
        return [f"{topic}: {known[topic].description}", f"allowed: {allowed(topic)}",
                f"presets: {values}", *rules]
    if topic == "extends":
        return [f"extends: {EXTENDS}", f"allowed: {', '.join(PRESETS)}"]
    inside = [key for key in known if key.startswith(f"{topic}.")]
    if inside:
        return [f"{topic}: {Configuration.model_fields[topic].description}",
                *(f"{key}: {known[key].description}" for key in inside)]
    spelling = (nearest(topic.upper(), CODES) if topic[:1] in "xX"
                else nearest(topic, [*known, "extends"]))
    raise UsageError("X214", f"{topic!r} is neither an error code nor a key{spelling}",
                     "docs/errors.md and docs/configuration.md list them all")


def template(name: str) -> str:
    """A configuration file that extends a preset, every key shown in comments."""
    values = _values(name)
    lines = ["# Exactum configuration. Everything not stated here comes from the preset.",
             "# `exactum explain KEY` describes a key, `exactum check FILE` validates the file.",
             "schema = 1", f'extends = "{name}"']
    table = ""
    for key, field in fields().items():
        head, _, last = key.rpartition(".")
        if key in ("schema", "name"):
            continue
        if head != table:
            table = head
            lines += ["", f"[{table}]"]
        lines += [fill(f"{field.description} Allowed: {allowed(key)}.", 100,
                       initial_indent="# ", subsequent_indent="# "),
                  f"# {last} = {_shown(values, key)}"]
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """docs/configuration.md."""
    lines = [
        "# The configuration", "",
        "One TOML file with `schema = 1`. `extends = \"default\"` takes every key not stated from "
        "a preset (`tiny`,", "`small`, `default`); without it every key is stated. `-s KEY=VALUE` "
        "overrides single keys on the command line.", "Unknown keys are errors, nothing is "
        "adjusted, and all problems are reported at once. `exactum new` writes a file to", "start "
        "from, `exactum check --schema` a JSON schema for editors.", "",
        "(Written from the models in `gen/config.py`: `python -m exactum.gen.reference docs`.)",
        "", f"| key | meaning | allowed | {' | '.join(PRESETS)} |",
        f"|---|---|---|{'---|' * len(PRESETS)}"]
    presets = [_values(name) for name in PRESETS]
    for key, field in fields().items():
        shown = " | ".join(f"`{_shown(values, key)}`" for values in presets)
        lines.append(f"| `{key}` | {field.description} | {allowed(key)} | {shown} |")
    lines += ["", "## Rules over several keys", ""]
    lines += [f"- {rule.text}" for rule in RULES]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """docs/errors.md."""
    lines = ["# Error codes", "",
             "Every error is one sentence with the value seen and the values allowed, then the "
             "next step. `exactum explain CODE`", "prints an entry of this page. Exit codes: 0 "
             "fine, 1 the result is bad, 2 usage or configuration (X1, X2), 3 a tool", "is "
             "missing (X3), 4 device or link (X4).", "",
             "(Written from the table in `gen/errors.py`: `python -m exactum.gen.reference docs`.)",
             "", "| code | error | what to know |", "|---|---|---|"]
    lines += [f"| {c.code} | {c.title} | {c.explanation} |" for c in CODES.values()]
    return "\n".join(lines) + "\n"


def _values(name: str) -> dict[str, Any]:
    config: Configuration = preset(name)
    return config.model_dump(mode="json", by_alias=True)


def _shown(values: dict[str, Any], key: str) -> str:
    value = at(values, key)
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _main() -> None:
    """Write the two pages into the folder named on the command line."""
    import sys
    from pathlib import Path
    folder = Path(sys.argv[1])
    (folder / "configuration.md").write_text(configuration_page(), "utf-8")
    (folder / "errors.md").write_text(errors_page(), "utf-8")


if __name__ == "__main__":
    _main()
