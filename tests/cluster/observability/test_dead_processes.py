"""What processes counted before they went, with real processes and real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.observability.metrics import aggregate, node_samples

COUNTS = """
import sys
from pathlib import Path
from cluster.observability.metrics import make_metrics
metrics = make_metrics(Path(sys.argv[1]))
metrics.requests.labels("m", "v", "ok").inc(float(sys.argv[2]))
metrics.request_seconds.labels("m", "v").observe(0.002)
metrics.statistics.last_inference.labels("m", "1").set(float(sys.argv[2]))
metrics.in_flight.set(7)
"""
"""A process that counts, says nothing and goes without a word (its files stay)."""

SCRAPES_AND_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from cluster.observability.metrics import aggregate
replace, when = os.replace, sys.argv[2]
def killed(source, target):
    if not str(target).endswith(".db"):
        return replace(source, target)
    if when == "after":
        replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
aggregate(Path(sys.argv[1]))
"""

COMES_AND_GOES = """
import os, sys
from pathlib import Path
from cluster.observability.metrics import make_metrics
for _ in range(10):
    child = os.fork()
    if not child:
        make_metrics(Path(sys.argv[1])).requests.labels("m", "v", "ok").inc()
        os._exit(0)
    os.waitpid(child, 0)
"""

SCRAPES_UNTIL = """
import sys, time
from pathlib import Path
from cluster.observability.metrics import node_samples
total, began_s = 0.0, time.monotonic()
while total < 10 and time.monotonic() - began_s < 60:
    total = node_samples(Path(sys.argv[1])).total("squadron_requests")
    print(total, flush=True)
    time.sleep(0.002)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.endswith(".lock")}


def test_the_dead_become_one_file_of_each_kind_and_count_on(tmp_path: Path) -> None:
    for counted in (3, 5, 4):
        assert run(COUNTS, tmp_path, counted).returncode == 0
    assert len(files(tmp_path)) == 3 * 5

    text = aggregate(tmp_path).decode()

    assert files(tmp_path) == {"counter_merged.db", "histogram_merged.db", "gauge_max_merged.db"}
    assert 'squadron_requests_total{model="m",outcome="ok",variant="v"} 12.0' in text
    assert 'squadron_request_seconds_count{model="m",variant="v"} 3.0' in text
    assert 'squadron_request_seconds_bucket{le="0.0025",model="m",variant="v"} 3.0' in text
    assert 'squadron_last_inference_seconds{model="m",version="1"} 5.0' in text
    assert "squadron_requests_in_flight" not in text
    assert aggregate(tmp_path).decode() == text


def test_those_who_die_later_are_added_to_those_before(tmp_path: Path) -> None:
    for counted, total in ((3, 3), (4, 7)):
        run(COUNTS, tmp_path, counted)
        assert node_samples(tmp_path).total("squadron_requests") == total
    assert len(files(tmp_path)) == 3


def test_a_process_that_lives_keeps_its_file(tmp_path: Path) -> None:
    run(COUNTS, tmp_path, 3)
    living = subprocess.Popen(
        [sys.executable, "-c", f"{COUNTS}\nprint(flush=True)\ninput()", str(tmp_path), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with living:
        assert living.stdout is not None
        living.stdout.readline()
        samples = node_samples(tmp_path)
        assert f"counter_{living.pid}.db" in files(tmp_path)
        living.kill()

    assert samples.total("squadron_requests") == 5
    assert samples.total("squadron_requests_in_flight") == 7
    assert node_samples(tmp_path).total("squadron_requests") == 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_door_that_is_killed_while_it_merges_neither_loses_nor_doubles(
    when: str, tmp_path: Path
) -> None:
    for counted in (3, 4):
        run(COUNTS, tmp_path, counted)

    assert run(SCRAPES_AND_IS_KILLED, tmp_path, when).returncode == -9
    left = files(tmp_path)
    total = node_samples(tmp_path).total("squadron_requests")

    assert "merging.json" in left
    assert total == 7
    assert len(files(tmp_path)) == 3


def test_no_scrape_sees_less_than_the_one_before(tmp_path: Path) -> None:
    tmp_path.joinpath("metrics").mkdir()
    folder = str(tmp_path / "metrics")
    scrape = [sys.executable, "-c", SCRAPES_UNTIL, folder]
    with (
        subprocess.Popen(scrape, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(scrape, stdout=subprocess.PIPE, text=True) as other,
    ):
        try:
            done = run(COMES_AND_GOES, folder)
            told = [each.communicate(timeout=120)[0] for each in (one, other)]
        finally:
            one.kill()
            other.kill()

    assert done.returncode == 0, done.stderr
    for text in told:
        totals = [float(line) for line in text.split()]
        assert totals == sorted(totals)
        assert totals[-1] == 10
