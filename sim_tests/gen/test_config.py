"""Configurations: presets, files, overrides, the rules, and the sentence for every mistake."""

import json
from fractions import Fraction
from itertools import product

import pytest
from pydantic import ValidationError

from exactum.gen.config import PRESETS, Configuration, allowed, fields, load, preset, schema
from exactum.gen.errors import ConfigurationError
from exactum.gen.reference import configuration_page
from exactum.hdl.formats import FORMATS
from sim_tests.repository import ROOT

NARROW = [name for name, fmt in FORMATS.items() if not fmt.is_wide]


def problems(source, overrides=()):
    with pytest.raises(ConfigurationError) as caught:
        load(source, overrides)
    return caught.value.problems


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_under_their_name(name):
    assert preset(name).name == load(name).name == name


@pytest.mark.parametrize("name", PRESETS)
def test_resolved_toml_reads_back_to_an_equal_configuration(name, tmp_path):
    config = preset(name)
    again = load(write(tmp_path, config.to_toml()))
    assert again == config
    assert again.hash == config.hash


def test_hash_tells_any_two_configurations_apart():
    config = preset("small")
    changes = [{"vpcu.lanes": 5}, {"clock_mhz": 50.0}, {"name": "x"}, {"vpcu.formats": ["e4m3"]}]
    assert len({config.hash, *(config.replace(change).hash for change in changes)}) == 5


def test_hash_is_pinned():
    # A change here means that every output folder in the world reads as of another configuration.
    assert preset("tiny").hash.startswith("e929597e666f3e25")


def test_file_takes_its_name_and_the_rest_from_the_preset(tmp_path):
    config = load(write(tmp_path, 'schema = 1\nextends = "small"\n[vpcu]\nlanes = 3\n'))
    assert (config.name, config.vpcu.lanes) == ("mine", 3)
    assert config == preset("small", {"vpcu.lanes": 3, "name": "mine"})


def test_overrides_win_over_the_file_and_show_in_the_name(tmp_path):
    path = write(tmp_path, 'schema = 1\nextends = "small"\nvpcu.lanes = 3\n')
    config = load(path, ["vpcu.lanes=2", 'vpcu.formats=["e4m3", "bf16"]', "vpcu.lanes=7"])
    assert (config.name, config.vpcu.lanes) == ("mine-custom", 7)
    assert config.vpcu.formats == ("e4m3", "bf16")
    assert load("tiny", ["name=own"]).name == "own"


def test_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        preset("tiny").name = "other"


def test_direct_construction_checks_the_rules_too():
    values = json.loads(preset("tiny").to_json())
    values["vpcu"] |= {"accumulator_width": 47, "formats": ("e4m3",)}
    with pytest.raises(ConfigurationError, match="X107"):
        Configuration.model_validate(values)


def test_all_problems_come_at_once_with_line_value_and_spelling(tmp_path):
    path = write(tmp_path, "\n".join([
        "schema = 1", 'extends = "small"', 'nam = "x"', "[vpcu]  # the engine", "lanez = 3",
        "lanes = 65", 'formats = ["e4m4", "fp16"]', 'accumulator_width = "100"', "max_k = 3000",
        "[softmax]", "lanes = true"]))
    found = {(p.where, p.code): p.message for p in problems(path)}
    assert found == {
        (f"{path}:3", "X104"): "unknown key `nam` (did you mean `name`?); known here: schema, "
        "name, clock_mhz, target, extends, vpcu, zce, softmax, elementwise, device",
        (f"{path}:5", "X104"): "unknown key `vpcu.lanez` (did you mean `lanes`?); known here: "
        "lanes, formats, accumulator_width, max_k, b_depth, drains, scale_block",
        (f"{path}:6", "X106"): "`vpcu.lanes` is an integer from 1 to 64; got 65; the nearest is 64",
        (f"{path}:7", "X106"): "`vpcu.formats` is a list of distinct names out of e4m3, e5m2, "
        'fp16, bf16, fp32; got "e4m4" (did you mean `e4m3`?)',
        (f"{path}:8", "X105"): "`vpcu.accumulator_width` is an integer from 24 to 256; "
        'got "100"',
        (f"{path}:9", "X106"): "`vpcu.max_k` is a power of two from 64 to 32768; got 3000; the "
        "nearest is 2048",
        (f"{path}:11", "X105"): "`softmax.lanes` is a power of two from 1 to 16; got true",
    }


@pytest.mark.parametrize(("text", "code", "line", "words"), [
    ("schema = 2\nextends = 'tiny'", "X108", 1, "`schema` is 1 in this release; got 2"),
    ("extends = 'tiny'", "X108", None, "`schema = 1` is missing"),
    ("schema = 1\nextends = 'tinny'", "X103", 2, "did you mean `tiny`?"),
    ("schema = 1\nextends = 7", "X105", 2, "presets are tiny, small, default; got 7"),
    ("schema = 1\nextends = 'tiny'\nvpcu = 7", "X105", 3, "`vpcu` is a table of keys; got 7"),
    ("schema = 1\nextends = 'tiny'\n[vpcu]\nformats = []", "X106", 4, "got []"),
    ("schema = 1\nextends = 'tiny'\n[vpcu]\nformats = ['e4m3', 'e4m3']", "X106", 4, "distinct"),
    ("schema = 1\nextends = 'tiny'\n[vpcu]\nlanes = 2.0", "X105", 4, "an integer from 1 to 64"),
    ("schema = 1\nextends = 'tiny'\nclock_mhz = 0", "X106", 3, "a number above 0"),
    ("schema = 1\nextends = 'tiny'\nname = 'a\\nb'", "X106", 3, "a letter or digit first"),
    ("schema = 1\nextends = 'tiny'\nclock_mhz = nan", "X106", 3, "got NaN"),
    ("schema = true\nextends = 'tiny'", "X108", 1, "`schema` is 1 in this release; got true"),
    ("schema = 1.0\nextends = 'tiny'", "X108", 1, "`schema` is 1 in this release; got 1.0"),
    ("", "X108", None, "`schema = 1` is missing"),
    ("schema = 1\nextends = 'tiny'\nvpcu = {lanes = 0}", "X106", 3, "from 1 to 64; got 0"),
    ("schema = 1\nextends = 'tiny'\nname = '\u00fc'", "X106", 3, "A-Z, a-z, 0-9, space"),
    ("schema = 1\nextends = 'tiny'\nname = '\U0001d518x'", "X106", 3, "A-Z, a-z, 0-9, space"),
    ("schema = 1\n[vpcu\n", "X102", 2, "not TOML"),
    ("schema = 1\nschema = 1\n", "X102", 2, "not TOML"),
])
def test_each_mistake_has_its_code_line_and_sentence(text, code, line, words, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    first, *others = [p for p in problems(path) if text or p.code != "X109"]
    assert not others
    assert first.code == code
    assert first.where == (str(path) if line is None else f"{path}:{line}")
    assert words in first.message


def test_without_extends_every_missing_key_is_named(tmp_path):
    found = problems(write(tmp_path, "schema = 1\n[vpcu]\nlanes = 1\n"))
    assert {p.key for p in found if p.code == "X109"} == {
        "clock_mhz", "vpcu.formats", "vpcu.accumulator_width", "vpcu.max_k",
        "vpcu.b_depth", "vpcu.drains", "vpcu.scale_block", "target", "zce", "softmax",
        "elementwise", "device"}


def test_an_unknown_preset_hides_no_other_problem(tmp_path):
    found = problems(write(tmp_path, "schema = 1\nextends = 'smal'\nvpcu.lanes = 0\n"), ["foo"])
    assert [p.code for p in found] == ["X103", "X106", "X110"]


@pytest.mark.parametrize("override", ["foo", "=3", "vpcu.lanes=", "vpcu lanes=3", ""])
def test_malformed_overrides_are_named(override):
    assert problems("tiny", [override])[0].code == "X110"


@pytest.mark.parametrize(("overrides", "where"), [
    (["vpcu.max_k=4096", "vpcu.lanes=0"], {("X107", "-s vpcu.max_k"), ("X106", "-s vpcu.lanes")}),
    (["vpcu.accumulator_width=47"], {("X107", "-s vpcu.accumulator_width")}),
    (["vpcu.max_k=4096", "vpcu.accumulator_width=48"], {("X107", "-s vpcu.accumulator_width")}),
    (["vpcu.accumulator_width=48", "vpcu.max_k=4096"], {("X107", "-s vpcu.max_k")}),
    (["softmax.max_length=16", "softmax.lanes=8", "vpcu.b_depth=4096"],
     {("X107", "-s vpcu.b_depth")}),
])
def test_broken_rule_names_the_override_that_was_given_last(overrides, where):
    assert {(p.code, p.where) for p in problems("tiny", overrides)} == where


@pytest.mark.parametrize(("text", "line"), [
    ("[vpcu]\nlanes = 2\nmax_k = 4096\n", 5), ("vpcu.max_k = 4096\nvpcu.lanes = 2", 3),
    ("[vpcu]\nmax_k = 4096\naccumulator_width = 48\n", 5), ("vpcu = {max_k = 4096}\n", 3),
])
def test_broken_rule_names_the_line_of_its_own_key(text, line, tmp_path):
    path = write(tmp_path, f"schema = 1\nextends = 'tiny'\n{text}")
    assert [(p.code, p.where) for p in problems(path, ["vpcu.b_depth=64"])] == [
        ("X107", f"{path}:{line}")]


def test_missing_keys_are_not_blamed_on_an_override(tmp_path):
    path = write(tmp_path, "schema = 1\n")
    assert {p.where for p in problems(path, ["vpcu.lanes=1"])} == {str(path)}


def test_empty_file_is_named_with_every_problem(tmp_path):
    path = write(tmp_path, "")
    assert {p.where for p in problems(path, ["clock_mhz=50"])} == {str(path)}


def test_extends_is_no_override(tmp_path):
    path = write(tmp_path, "schema = 1\nextends = 'tiny'\n")
    for source in ("tiny", path):
        found, = problems(source, ["extends=small"])
        assert (found.code, found.where) == ("X104", "-s extends")
        assert found.message.startswith("`extends` belongs in a file")


def test_file_that_is_not_utf_8_is_said_to_be_so(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"schema = 1\n# M\xfcller\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert str(caught.value) == (f"X102: {path}:2: not UTF-8: the byte 0xFC stands for no "
                                 "character\n  next: save the file as UTF-8")


@pytest.mark.parametrize("name", ["tiny-1.0 + x_y", "9", "a" * 64])
def test_names_of_plain_characters_read_back(name, tmp_path):
    config = preset("tiny", {"name": name})
    assert load(write(tmp_path, config.to_toml())) == config


def test_problems_of_overrides_name_the_override():
    found = problems("tiny", ["vpcu.lanes=two", "vpcu.lans=2"])
    assert [(p.where, p.code) for p in found] == [
        ("-s vpcu.lanes", "X105"), ("-s vpcu.lans", "X104")]


@pytest.mark.parametrize(("source", "code"), [
    ("tinny", "X103"), ("missing.toml", "X101"), ("missing.txt", "X101"), ("", "X103"),
    ("no/such/folder", "X101"), (".", "X101")])
def test_sources_that_do_not_exist(source, code):
    assert problems(source)[0].code == code


def test_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert str(caught.value) == (f"X101: {str(tmp_path)!r} cannot be read: it is a folder\n"
                                 "  next: name a preset, or a TOML file in that folder")


def lowest_bit_is_kept(names, width, max_k):
    """Rule N4 restated: the lowest product bit of any pair is not under the window."""
    def low(fmt):
        return fmt.min_exponent - fmt.mantissa_width
    return all(
        Fraction(2) ** (a.max_exponent + b.max_exponent + 3 + max_k.bit_length() - 1 - width)
        <= Fraction(2) ** (low(a) + low(b))
        for a, b in product([FORMATS[name] for name in names], repeat=2))


@pytest.mark.parametrize("names", [["e4m3"], ["e5m2"], ["fp16"], ["e4m3", "e5m2"], NARROW])
@pytest.mark.parametrize("max_k", [64, 2048, 32768])
def test_least_width_is_exactly_where_the_lowest_product_bit_is_kept(names, max_k):
    def accepted(width):
        try:
            preset("small", {"vpcu.formats": names, "vpcu.accumulator_width": width,
                             "vpcu.max_k": max_k, "vpcu.b_depth": 64})
        except ConfigurationError:
            return False
        return True
    widths = range(40, 101)
    assert [accepted(w) for w in widths] == [lowest_bit_is_kept(names, w, max_k) for w in widths]


@pytest.mark.parametrize(("name", "least"), [("bf16", 38), ("fp32", 64)])
def test_wide_formats_keep_the_largest_product_whole(name, least):
    changes = {"vpcu.formats": [name], "vpcu.accumulator_width": least}
    assert preset("small", changes).vpcu.accumulator_width == least
    with pytest.raises(ConfigurationError, match=f"= {least}; got {least - 1}"):
        preset("small", changes | {"vpcu.accumulator_width": least - 1})


@pytest.mark.parametrize(("changes", "words"), [
    ({"vpcu.b_depth": 4096}, "vpcu.b_depth may not exceed vpcu.max_k = 2048; got 4096"),
    ({"softmax.lanes": 16, "softmax.max_length": 16}, None),
    ({"vpcu.accumulator_width": 47}, ">= 37 + log2(vpcu.max_k) = 48; got 47"),
    ({"clock_mhz": 12.0, "device.baud": 3_000_000}, None),
    ({"clock_mhz": 12.0, "device.baud": 4_000_000}, "got 4000000 at 12 MHz, and 3000000 is"),
    ({"device.baud": 8_000_000}, "to within 2 %; got 8000000 at 100 MHz, and 8333333 is possible"),
])
def test_rules_over_several_keys(changes, words):
    if words is None:
        preset("tiny", changes)
        return
    with pytest.raises(ConfigurationError) as caught:
        preset("tiny", changes)
    assert words in str(caught.value)
    assert caught.value.code == "X107"


def test_schema_describes_every_key_and_allows_leaving_them_out():
    described = schema()
    assert described["required"] == ["schema"]
    assert described["properties"]["extends"]["enum"] == list(PRESETS)
    assert described["additionalProperties"] is False
    for key in fields():
        table, _, last = key.rpartition(".")
        home = described["$defs"][table.title()] if table else described
        assert home["properties"][last]["description"]
    assert described["$defs"]["Vpcu"]["properties"]["lanes"]["maximum"] == 64


def test_every_key_has_its_legal_values_in_words():
    assert all(allowed(key) for key in fields())


def test_documentation_is_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_page(), (
        "run: python -m exactum.gen.reference docs")
