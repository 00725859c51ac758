"""Where a model's time and memory go: operators, bottlenecks in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One node of the graph, over all calls. `path` is its name, parts from the outside in.

    Units: `us_per_call` microseconds; `output_bytes`: what it writes (0: not told).
    """

    path: tuple[str, ...]
    operator: str
    us_per_call: float
    output_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """`trace` is a Chrome trace (about:tracing, Perfetto). `overhead_us`: of a call, what no
    operator accounts for."""

    model: str
    engine: str
    num_calls: int
    call_us: float
    operators: tuple[OperatorTime, ...]
    peak_bytes: int
    energy_joule: float | None
    energy_note: str
    trace: str

    @property
    def overhead_us(self) -> float:
        return max(0.0, self.call_us - sum(each.us_per_call for each in self.operators))

    def as_dict(self) -> dict[str, object]:
        return {
            "model": self.model,
            "engine": self.engine,
            "num_calls": self.num_calls,
            "call_us": self.call_us,
            "overhead_us": self.overhead_us,
            "peak_memory_bytes": self.peak_bytes or None,
            "energy_joule": self.energy_joule,
            "energy": self.energy_note,
            "layer_timings": [
                {
                    "name": "/".join(each.path),
                    "operator": each.operator,
                    "us": each.us_per_call,
                    "output_bytes": each.output_bytes,
                }
                for each in sorted(self.operators, key=lambda o: -o.us_per_call)
            ],
            "by_operator": by_operator(self.operators),
            "bottlenecks": list(bottlenecks(self)),
        }


def by_operator(operators: Sequence[OperatorTime]) -> dict[str, float]:
    """Operator type -> microseconds a call, most first."""
    found: dict[str, float] = {}
    for each in operators:
        found[each.operator] = found.get(each.operator, 0.0) + each.us_per_call
    return dict(sorted(found.items(), key=lambda item: -item[1]))


_CONVERSIONS = ("Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "aten::to",
                "aten::copy_", "Reorder", "ReorderInput", "ReorderOutput", "Convert")  # fmt: skip
_MOVES = ("Transpose", "Reshape", "Concat", "Slice", "Gather", "Expand", "aten::cat",
          "aten::contiguous", "aten::clone")  # fmt: skip
_PRODUCTS = ("Conv", "FusedConv", "QLinearConv", "NhwcFusedConv", "QConv", "MatMul", "Gemm",
             "FusedMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits", "aten::addmm",
             "aten::mm", "aten::bmm", "aten::convolution", "aten::mkldnn_convolution",
             "Convolution", "FullyConnected")  # fmt: skip

_SMALL_ALREADY = ("QLinearConv", "QConv", "MatMulInteger", "DynamicQuantizeMatMul")


def bottlenecks(report: ProfileReport) -> tuple[str, ...]:
    """What to look at, in words, most costly first; what to try where it is known."""
    total = sum(each.us_per_call for each in report.operators)
    if not total:
        return ("no operator reported a time",)
    said: list[tuple[float, str]] = []
    kinds = by_operator(report.operators)
    for kind, spent in list(kinds.items())[:3]:
        count = sum(each.operator == kind for each in report.operators)
        advice = ""
        if kind in _PRODUCTS and kind not in _SMALL_ALREADY:
            advice = "; int8 or bf16 makes products cheaper (squadron optimize)"
        said.append((spent, f"{kind}: {spent / total:.0%} of the time in {count} nodes{advice}"))
    for name, group, advice in (
        ("conversions between types", _CONVERSIONS, "weights stored in few bits but computed in "
         "fp32, or a graph quantised in pieces"),
        ("moving data", _MOVES, "the layout of the graph; a fused graph moves less"),
    ):  # fmt: skip
        spent = sum(kinds.get(kind, 0.0) for kind in group)
        if spent > 0.1 * total:
            said.append((spent, f"{name}: {spent / total:.0%} of the time; look at {advice}"))
    slowest = max(report.operators, key=lambda each: each.us_per_call)
    if slowest.us_per_call > 0.1 * total:
        name = "/".join(slowest.path)
        share = slowest.us_per_call / total
        said.append((slowest.us_per_call, f"one node alone, {name}: {share:.0%} of the time"))
    if report.overhead_us > 0.2 * report.call_us:
        said.append((
            report.overhead_us,
            f"between the operators: {report.overhead_us / report.call_us:.0%} of a call; the "
            "model is so small that larger batches pay",
        ))  # fmt: skip
    return tuple(text for _, text in sorted(said, key=lambda item: -item[0]))
