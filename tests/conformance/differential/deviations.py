"""Where Squadron answers otherwise than Triton 2.51 on purpose. The differential test fails for a
difference that is not here and for an entry here that no longer occurs."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "deviations.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """`cases`: `http: name` or `grpc: name`, * for any text. `fields`: what differs there.

    `marks` instead of cases: what is taken out of every answer before it is compared.
    """

    id: str
    triton: str
    ours: str
    why: str
    fields: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    mark: str = ""

    def explains(self, case: str) -> frozenset[str]:
        matches = any(fnmatchcase(case, pattern) for pattern in self.cases)
        return frozenset(self.fields) if matches else frozenset()


def _http(*names: str) -> tuple[str, ...]:
    return tuple(f"http: {name}" for name in names)


def _grpc(*names: str) -> tuple[str, ...]:
    return tuple(f"grpc: {name}" for name in names)


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        id="variant-parameter",
        mark="variant-parameter",
        triton="a good answer has no parameters of the server's own",
        ours="parameter `squadron_variant` names the variant that computed it",
        why="who shares a model's traffic between variants must see which one answered",
    ),
    Deviation(
        id="no-request-id",
        mark="no-request-id",
        triton="some error texts begin with `[request id: <id_unknown>]`",
        ours="the text alone",
        why="it tells the caller nothing",
    ),
    Deviation(
        id="caller-fault-is-400",
        triton="500 for JSON that cannot be read or has a value of the wrong type",
        ours="400",
        why="the caller must change the request; 500 makes clients and balancers retry",
        fields=("status",),
        cases=_http(
            "BOOL in JSON with a wrong value", "UINT32 in JSON with a wrong value",
            "UINT64 in JSON with a wrong value",
            "INT16 in JSON with a wrong value", "INT64 in JSON with a wrong value",
            "FP* in JSON with a wrong value", "BYTES in JSON with a wrong value",
            "truncated JSON", "JSON that is an array", "not UTF-8", "inputs missing",
            "inputs no array", "input without a name", "input without a datatype",
            "input without a shape", "fewer values than the shape", "more values than the shape",
            "negative dimension", "shape of text", "shape beyond 64 bits", "outputs no array",
            "id that is a number", "priority that is text", "timeout that is negative",
            "binary size that is negative", "header length inside the JSON",
        ),
    ),
    Deviation(
        id="own-words",
        triton="a text that quotes other names, or an error found at another place",
        ours="the same status; the text names the tensor, what was expected and what came",
        why="clients read the status; the texts that they do compare are kept word for word",
        fields=("error",),
        cases=(
            *_http(
                "empty body", "JSON that is an array", "JSON that is too deep", "not UTF-8",
                "zero rows", "classification and shared memory",
                "header length that is text", "raw body of an odd size", "broken gzip",
            ),
            *_grpc(
                "input without a name", "wrong datatype", "unknown datatype", "no datatype",
                "zero rows", "contents of another type", "raw contents too few",
                "FP16 in typed contents", "INT8 beyond its range",
            ),
        ),
    ),
    Deviation(
        id="output-order",
        triton="outputs come in the model's order",
        ours="outputs come in the order asked for, else in the signature's",
        why="gRPC's raw contents are read by place; the order a caller wrote is the safest",
        fields=("order",),
        cases=(
            *_http("outputs in another order", "every datatype in*"),
            *_grpc("every datatype raw"),
        ),
    ),
    Deviation(
        id="raw-text-of-a-batch",
        triton="a raw body for BYTES only where the input's shape is [1]",
        ours="also where every dimension is free or 1: one text or one picture",
        why="`curl --data-binary @photo.jpg` must work; what Triton takes works as well",
        fields=("status",),
        cases=_http("raw text"),
    ),
    Deviation(
        id="half-precision-in-json",
        triton="400 for FP16 (and BF16) as JSON numbers, in and out",
        ours="both are read and written",
        why="users of Triton ask for it (triton-inference-server/server#5960)",
        fields=("status",),
        cases=_http("FP16 in JSON", "FP16 out in JSON"),
    ),
    Deviation(
        id="depth-everywhere",
        triton="JSON is accepted at any depth under a key that it does not know",
        ours="400 beyond 100 levels, wherever they are",
        why="a bound that holds everywhere is one that can be relied upon",
        fields=("status",),
        cases=_http("an unknown key that is too deep"),
    ),
    Deviation(
        id="nan-is-no-json",
        triton="reads and writes the bare tokens NaN and Infinity",
        ours='400 for bare tokens; "NaN" and "Infinity" as strings are read and written',
        why="bare tokens are no JSON, and most clients' parsers fail on the answer",
        fields=("status",),
        cases=_http("bare NaN"),
    ),
    Deviation(
        id="bytes-that-are-no-text",
        triton="writes them into the JSON as they are; the answer is no JSON",
        ours="400 that tells the caller to ask for binary",
        why="an answer that its caller can read, or an error",
        fields=("status",),
        cases=_http("output that is not UTF-8 in JSON"),
    ),
    Deviation(
        id="an-output-once",
        triton="2.51 takes an output named twice; later ones refuse it",
        ours="400, in the later Triton's words",
        why="protocol section 5.4",
        fields=("status",),
        cases=(*_http("output twice"), *_grpc("output twice")),
    ),
    Deviation(
        id="health-in-json",
        triton="an empty text/plain body",
        ours='{"live":true}, {"ready":true}, with the model\'s name for a model',
        why="kserve's client cannot read an empty body; Triton's looks at the status only",
        fields=("body", "kind"),
        cases=_http("live", "ready", "model ready", "model ready, version 1"),
    ),
    Deviation(
        id="ready-of-what-is-not-there",
        triton="400 'Model version not ready', over gRPC OK and not ready",
        ours="404 and NOT_FOUND, as every other route says it",
        why="a name that nobody serves will not become ready by waiting",
        fields=("status",),
        cases=(
            *_http("unknown model ready", "unknown version ready"),
            *_grpc("unknown model ready", "unknown version ready"),
        ),
    ),
    Deviation(
        id="unknown-is-404",
        triton="400 and INVALID_ARGUMENT for statistics and trace settings of an unknown model",
        ours="404 and NOT_FOUND",
        why="the same mistake has the same status everywhere",
        fields=("status",),
        cases=(
            *_http("statistics of an unknown model"),
            *_grpc("statistics of an unknown model", "trace settings of an unknown model"),
        ),
    ),
    Deviation(
        id="version-that-is-no-number",
        triton="INVALID_ARGUMENT",
        ours="NOT_FOUND: no such version",
        why="the same answer over both transports",
        fields=("status",),
        cases=_grpc("version that is no number"),
    ),
    Deviation(
        id="server-facts",
        triton="its own version and extensions",
        ours="our version, and the extensions that work",
        why="an extension is named when it works, not before",
        fields=("body",),
        cases=(*_http("server metadata"), *_grpc("server metadata")),
    ),
    Deviation(
        id="model-configuration",
        triton="every field of its own configuration",
        ours="the fields that say something here, and the variants as parameters",
        why="queues, placement and versions are configured otherwise",
        fields=("body",),
        cases=(*_http("model config", "unbatched model config"), *_grpc("model config")),
    ),
    Deviation(
        id="index-reason",
        triton="leaves `reason` out where it is empty",
        ours="always there",
        why="the protocol's text lists it as a field of every entry",
        fields=("body",),
        cases=_http("index", "index of what is ready"),
    ),
    Deviation(
        id="named-repository",
        triton="2.51 ignores the repository's name in the path of the index; over gRPC refuses it",
        ours="501 and UNIMPLEMENTED over both",
        why="one repository, one answer",
        fields=("status",),
        cases=_http("index of a named repository"),
    ),
    Deviation(
        id="unknown-setting",
        triton="ignores a log setting that it does not know",
        ours="400 that lists those there are",
        why="a setting with a slip in its name must not look as if it held",
        fields=("status",),
        cases=_http("an unknown log setting"),
    ),
    Deviation(
        id="raw-contents-left-over",
        triton="ignores raw contents beyond those of its inputs",
        ours="INVALID_ARGUMENT",
        why="protocol section 5.6: as many buffers as inputs",
        fields=("status",),
        cases=_grpc("raw contents too many"),
    ),
    Deviation(
        id="negative-timeout",
        triton="takes a negative timeout over gRPC (and refuses it over HTTP)",
        ours="INVALID_ARGUMENT, as over HTTP",
        why="one meaning over both transports",
        fields=("status",),
        cases=_grpc("timeout that is negative"),
    ),
)  # fmt: skip


def explained(case: str) -> frozenset[str]:
    """The fields that may differ in a case."""
    return frozenset[str]().union(*(each.explains(case) for each in DEVIATIONS))


def rendered() -> str:
    """`deviations.md`."""
    rows = [
        "| id | Triton 2.51 | Squadron | why | where it shows |",
        "|---|---|---|---|---|",
    ]
    for each in DEVIATIONS:
        where = "; ".join(each.cases) or "every answer"
        cells = (f"`{each.id}`", each.triton, each.ours, each.why, where)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return (
        "# Intended deviations from Triton\n\n"
        "Rendered from `differential/deviations.py` by `python -m "
        "tests.conformance.differential.deviations`; the differential test fails\n"
        "for a difference that is not listed here and for a listed one that no longer occurs.\n\n"
        + "\n".join(rows)
        + "\n\nNot asked of both: classification of a BYTES output (Triton 2.51 dies of it; ours "
        "answers 400); a restricted API without its key over gRPC (Triton UNAVAILABLE, ours "
        "PERMISSION_DENIED, the same text); traces (their settings are kept and answered, nothing "
        "is traced by them: the extension `trace` is not named); several served versions of one "
        "model (the suite `imported` asks both for them); warm-up data (zeros "
        "of the right shape instead).\n"
    )


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
