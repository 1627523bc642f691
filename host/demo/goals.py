"""What the demo must reach, and whether it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .main import Comparison

__all__ = ["Goal", "judge"]

_ACCURACY = 97.0         # percent, offloaded
_ACCURACY_POINTS = 0.5   # from fp32
_LOSS_SHARE = 0.03       # from fp32


@dataclass(frozen=True)
class Goal:
    """One goal in words, what was measured, and whether that reaches it."""

    text: str
    measured: str
    reached: bool


def judge(comparisons: "Sequence[Comparison]", *, learnt: bool = True) -> list[Goal]:
    """The goals; without ``learnt`` only whether everything was offloaded."""
    digits, text = comparisons
    goals = [_everything_offloaded(comparison) for comparison in comparisons]
    if learnt:
        goals += _digits_goals(digits) + _text_goals(text)
    return goals


def _everything_offloaded(comparison: "Comparison") -> Goal:
    report = comparison.report
    calls = report.total("calls")
    left = sum(row.calls for row in report.fallbacks)
    return Goal(f"{comparison.task.name}: every matrix product and softmax is offloaded",
                f"{calls:,} offloaded, {left:,} not", calls > 0 and left == 0)


def _digits_goals(digits: "Comparison") -> list[Goal]:
    accuracy, apart = digits.offloaded.score, abs(digits.offloaded.score - digits.fp32.score)
    return [
        Goal(f"digits: at least {_ACCURACY:g} % accuracy offloaded", f"{accuracy:.2f} %",
             accuracy >= _ACCURACY),
        Goal(f"digits: within {_ACCURACY_POINTS:g} points of fp32", f"{apart:.2f} points",
             apart <= _ACCURACY_POINTS),
    ]


def _text_goals(text: "Comparison") -> list[Goal]:
    final, held_out = text.loss_ratio - 1, text.offloaded.score / text.fp32.score - 1
    entropy = float(text.task.facts["unigram entropy"])
    return [
        Goal(f"text: final loss within {_LOSS_SHARE:.0%} of fp32's", f"{final:+.2%}",
             abs(final) <= _LOSS_SHARE),
        Goal(f"text: held-out loss within {_LOSS_SHARE:.0%} of fp32's", f"{held_out:+.2%}",
             abs(held_out) <= _LOSS_SHARE),
        Goal(f"text: held-out loss well below {entropy:.2f}, that of guessing by frequency",
             f"{text.offloaded.score:.2f}", text.offloaded.score < 0.85 * entropy),
    ]
