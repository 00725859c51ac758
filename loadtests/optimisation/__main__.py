"""The optimisation table: ten models, their variants, one interleaved run each.

    python -m loadtests.optimisation                     all of them, one after the other
    python -m loadtests.optimisation --only resnet50,minilm --rounds 20

Needs the fetched models. Writes `loadtests/optimisation/report/`: one JSON a model and kind of
processor, README.md with the tables and the goals, speedups.svg. A model that has its JSON for this
processor is kept unless it is named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from cluster.config.store import ModelStore
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.optimization.cache.fingerprint import hardware
from cluster.optimization.search.optimize import Wish, optimize
from loadtests.machine import fingerprint
from loadtests.optimisation.page import slug, write_page
from loadtests.optimisation.works import WORKS

REPORT = Path(__file__).with_name("report")


def main() -> int:
    parser = argparse.ArgumentParser(prog="loadtests.optimisation", description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--store", type=Path, default=Path("models"))
    parser.add_argument("--cache-dir", type=Path, default=None)
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    REPORT.mkdir(exist_ok=True)
    processor = slug(hardware().processor)
    for work in WORKS:
        file = REPORT / f"{work.name}.{processor}.json"
        if (names and work.name not in names) or (not names and file.exists()):
            continue
        started_s = time.perf_counter()
        print(f"{work.name}: {work.says}", file=sys.stderr, flush=True)
        module, example, data = work.make(given.store)
        report = optimize(
            module,
            Wish(
                recipes=work.recipes, limits=work.limits, data=data, example=example,
                num_rounds=given.rounds, tuning=work.tuning,
            ),
            store=ModelStore(given.store),
            cache=ArtefactCache(given.cache_dir),
            name=work.name,
        )  # fmt: skip
        content = {
            "work": work.name,
            "says": work.says,
            "goal": work.goal,
            "machine": fingerprint(),
            "took_s": round(time.perf_counter() - started_s, 1),
            **report.as_dict(),
        }
        file.write_text(json.dumps(content, indent=1), encoding="utf-8")
        print(f"  {report.reason}", file=sys.stderr, flush=True)
        write_page(REPORT, [each.name for each in WORKS])
    return 0


if __name__ == "__main__":
    sys.exit(main())
