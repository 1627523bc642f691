"""The contract names the tests that prove it; they must be there."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONTRACT = (HERE.parent / "docs" / "numerics.md").read_text("utf-8")
PROOFS = sorted(set(re.findall(r"\| `((?:host|hdl|benches)/\w+\.py(?:::\w+)?)`", CONTRACT)))


@pytest.mark.parametrize("proof", PROOFS)
def test_every_proof_named_in_the_contract_exists(proof):
    path, _, name = proof.partition("::")
    text = (HERE / path).read_text("utf-8")
    assert f"def {name}(" in text if name else text


def test_every_rule_has_a_proof():
    for rule in ("N1", "N2", "N3", "N4", "N5", "N6", "conversions", "softmax",
                 "S7, log-softmax", "S8, blocks", "A1 to A7, attention", "elementwise", "cycles"):
        assert re.search(rf"^\| {rule} \| `", CONTRACT, re.MULTILINE), rule
