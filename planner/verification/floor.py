"""What a candidate must reach: a least SQNR, a least share of equal top-1 answers, or a least value of the user's metric.

A metric is the user's own function ``module:function``. It is called with one argument, ``run``; ``run(sample)`` takes a
dict of the model's inputs and returns a dict of its outputs, and the function returns one number, larger is better:

    def accuracy(run):
        pairs = [(run({"image": image})["scores"].argmax(), label) for image, label in my_labelled_pictures()]
        return sum(guess == label for guess, label in pairs) / len(pairs)

It brings its own labelled data, and is called again for every model that is judged, the float32 one included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planner.errors import RequestError
from planner.user_code import load_function, running
from planner.verification.fidelity import ENOUGH_SAMPLES, Comparison, Fidelity, sqnr

Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Kind = Literal["sqnr", "top1", "metric"]


@dataclass(frozen=True)
class Floor:
    """The least that counts as faithful.

    Attributes:
        kind: "sqnr": dB, of every output, and of each part of one that joins several tensors; from 8 samples on it is the
            lower end of the interval over the samples that must reach it; "top1": share of rows with an equal argmax, 0 to
            1, of every output that looks like class scores; "metric": of the user's own function.
        value: in the unit of its kind.
        metric: "module:function", where the kind is "metric".
    """

    kind: Kind
    value: float
    metric: str | None = None

    def __str__(self) -> str:
        return {
            "sqnr": f"{self.value:g} dB SQNR",
            "top1": f"{100 * self.value:g} % equal top-1 answers",
            "metric": f"{self.metric} of {self.value:g}",
        }[self.kind]

    def score(self, fidelity: Sequence[Fidelity], metric: float | None = None) -> float:
        """What the floor is compared with: the least SQNR or lower end of one, the least top-1 agreement, or the metric;
        -inf where the outputs are not finite, dead (zero throughout where float32 is not), or there are none.

        Raises:
            RequestError: a top-1 floor, and no output that looks like class scores.
        """
        if not fidelity or not all(entry.finite for entry in fidelity):
            return -math.inf
        if self.kind != "sqnr" and any(entry.is_dead for entry in fidelity):
            return -math.inf
        if self.kind == "metric":
            return -math.inf if metric is None else metric
        if self.kind == "sqnr":
            return min(entry.judged_db for entry in fidelity)
        shares = [entry.top1_agreement for entry in fidelity if entry.top1_agreement is not None]
        if not shares:
            raise RequestError(
                "--floor top1=...: no output of the model looks like class scores (two dimensions, float)",
                "give the floor in dB, or a function of your own with --metric module:function",
            )
        return min(shares)

    def passes(self, fidelity: Sequence[Fidelity], metric: float | None = None) -> bool:
        return self.score(fidelity, metric) >= self.value

    def is_out_of_reach(self, comparison: Comparison, signals: Mapping[str, float]) -> bool:
        """Whether no further sample, however good, brings every output up to a floor in dB: what one is off by already is too much.

        Args:
            comparison: of the samples that ran.
            signals: energies of the reference's outputs over all that are to run: see `Comparison.signals`.
        """
        return self.kind == "sqnr" and any(
            found.finite and sqnr(signals[name], sum(error for _, error in found.energies)) < self.value
            for name, found in comparison.outputs.items()
            if name in signals
        )

    def is_missed(self, ran: Comparison, emulated: Comparison, places: Sequence[int]) -> bool:
        """Whether what ran falls short of a floor in dB, and would with the samples at these places, were they as good as emulated."""
        if self.kind != "sqnr" or not any(self.shortfalls(results := ran.results())):
            return False
        return not all(found.finite for found in results) or ran.least_with(emulated, places) < self.value

    def shortfalls(self, fidelity: Sequence[Fidelity], metric: float | None = None) -> Iterator[str]:
        """Why it does not pass, in words; nothing where it does."""
        for entry in fidelity:
            if not entry.finite:
                yield f"output {entry.output!r} {entry.reshaped or 'holds NaN or infinite values'}"
            elif self.kind == "sqnr" and entry.least_db < self.value:
                yield f"{_weakest(entry)} has {entry.least_db:.1f} dB SQNR, below the floor of {self.value:g} dB"
            elif self.kind == "sqnr" and entry.judged_db < self.value:
                worst = (
                    "" if entry.worst_sample_db is None else f"; its worst sample has {entry.worst_sample_db:.1f} dB"
                )
                yield (
                    f"output {entry.output!r} has {entry.least_db:.1f} dB SQNR over {entry.samples} samples, but other samples "
                    f"may come to {entry.judged_db:.1f} dB (lower end of the 90 % interval), below the floor of "
                    f"{self.value:g} dB{worst}"
                )
            elif self.kind != "sqnr" and entry.is_dead:
                yield f"{_weakest(entry)} is zero throughout, and float32 is not"
            elif self.kind == "top1" and entry.top1_agreement is not None and entry.top1_agreement < self.value:
                yield (
                    f"output {entry.output!r} agrees with float32 in {100 * entry.top1_agreement:.1f} % of the top-1 "
                    f"answers, below the floor of {100 * self.value:g} %"
                )
        if self.kind == "metric" and metric is not None and not metric >= self.value:
            yield f"{self.metric} is {metric:g}, below the floor of {self.value:g}"

    def too_few(self, samples: int) -> str:
        """A warning where so few samples give no interval to compare the floor with; empty where they do."""
        if self.kind != "sqnr" or samples >= ENOUGH_SAMPLES:
            return ""
        return (
            f"judged on {samples} samples: too few to tell what others come to; {ENOUGH_SAMPLES} would do "
            f"(where a quarter is held apart: {4 * ENOUGH_SAMPLES} with --inputs)"
        )

    def other_answers(self, fidelity: Sequence[Fidelity]) -> Iterator[str]:
        """A warning for each output that reaches a floor in dB and changes more of the top-1 answers than that lets one think."""
        for entry in fidelity if self.kind == "sqnr" else ():
            kept = entry.top1_agreement
            if entry.judged_db >= self.value and kept is not None and kept < _FEW_ANSWERS:
                yield (
                    f"output {entry.output!r} reaches {self.value:g} dB, yet only {100 * kept:.0f} % of its top-1 answers are "
                    "float32's: if it holds class scores, ask for the answers with --floor top1=0.95"
                )


# Fewer equal answers than this are told where only a floor in dB was asked for.
_FEW_ANSWERS = 0.9


def _weakest(entry: Fidelity) -> str:
    """The output, or the part of it that is less faithful, in words."""
    part = entry.weakest_part
    return f"output {entry.output!r}" if part is None else f"part {part.name!r} of output {entry.output!r}"


# Where no floor is asked for: at 20 dB the error has a hundredth of the signal's energy.
DEFAULT_FLOOR = Floor("sqnr", 20.0)


def parse_floor(text: str, metric: str | None = None) -> Floor:
    """The floor that ``--floor`` and ``--metric`` ask for: "30" or "sqnr=30" (dB), "top1=0.99", or with a metric a number.

    Raises:
        RequestError: no number, out of range, or contradicting options.
    """
    kind, separator, number = text.partition("=")
    kind = kind.strip().lower() if separator else ("metric" if metric is not None else "sqnr")
    try:
        value = float(number if separator else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"--floor {text!r} is no number", "write --floor 30 (dB), --floor top1=0.99")
    if metric is not None:
        if separator:
            raise RequestError(f"--floor {text!r} does not go with --metric", "give the metric's least value alone")
        if not all(part for part in metric.partition(":")):
            raise RequestError(f"--metric {metric!r} names no function", "write module:function")
        return Floor("metric", value, metric)
    if kind == "sqnr" and -200 <= value <= 200:
        return Floor("sqnr", value)
    if kind == "top1" and 0 <= value <= 1:
        return Floor("top1", value)
    if kind == "sqnr":
        raise RequestError(f"--floor {text!r} is no number of dB between -200 and 200")
    if kind == "top1":
        raise RequestError(f"--floor {text!r}: a share lies between 0 and 1", "write for example --floor top1=0.99")
    raise RequestError(f"--floor {text!r}: unknown kind {kind!r}", "write --floor 30 (dB) or --floor top1=0.99")


def load_metric(name: str) -> Callable[[Run], float]:
    """The user's function, wrapped: what it raises, and what is no number, becomes a RequestError.

    Raises:
        RequestError: there is no such module or function.
    """
    function = load_function(name, "--metric")

    def metric(run: Run) -> float:
        with running(name, "--metric"):
            value = float(function(run))
        if math.isnan(value):
            raise RequestError(f"--metric {name} returned NaN", "return one number, larger is better")
        return value

    return metric


__all__ = ["DEFAULT_FLOOR", "Floor", "Run", "load_metric", "parse_floor"]
