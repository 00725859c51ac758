from __future__ import annotations

import pytest

from cluster.control.jobs.job import (
    MAX_STEPS,
    Job,
    JobLimits,
    admit,
    next_to_start,
    reserve,
    to_forget,
    with_artefact,
)
from cluster.control.jobs.request import JobRequest, OptimizeRequest, ProfileRequest
from cluster.errors import InvalidRequest, Overloaded

PROFILE = ProfileRequest(kind="profile", model="m")
SEARCH = OptimizeRequest(kind="optimize", model="m")


def job(name: str, created_s: float = 0.0, request: JobRequest = PROFILE, size: int = 0) -> Job:
    return Job(id=name, request=request, created_s=created_s, num_input_bytes=size)


def test_a_job_goes_from_the_queue_to_its_end_and_stays_there() -> None:
    running = job("a").started(1.0, "asks").running("beside").told("open")
    done = running.succeeded(5.0, b"{}")

    assert (running.state, running.reason, running.steps) == ("running", "beside", ("open",))
    assert (done.state, done.ended_s, done.result) == ("succeeded", 5.0, b"{}")
    for later in (
        done.cancelled(9.0, "late"),
        done.failed(9.0, "EngineFailed", "late"),
        done.told("late"),
        done.started(9.0, "late"),
        done.running("late"),
    ):
        assert later == done
    assert job("a").cancelled(2.0, "why").started(3.0, "too late").state == "cancelled"


def test_what_a_caller_sees_of_a_job_is_without_its_result() -> None:
    told = job("a").started(1.0, "x").failed(2.0, "ConfigError", "no such option").as_dict()

    assert told == {
        "id": "a",
        "kind": "profile",
        "model": "m",
        "state": "failed",
        "reason": "no such option",
        "created_s": 0.0,
        "started_s": 1.0,
        "ended_s": 2.0,
        "steps": [],
        "error": {"type": "ConfigError", "message": "no such option"},
    }


def test_the_steps_that_are_kept_have_an_end() -> None:
    running = job("a").started(1.0, "x")
    for number in range(MAX_STEPS + 5):
        running = running.told(f"step {number}")

    assert len(running.steps) == MAX_STEPS


def test_few_jobs_may_wait_and_their_inputs_are_bounded() -> None:
    limits = JobLimits(max_waiting=2, max_waiting_bytes=100)
    running = job("r", size=10**9).started(0.0, "x")

    admit([running, job("a", size=50)], 50, limits)
    with pytest.raises(Overloaded, match="2 jobs wait"):
        admit([running, job("a"), job("b")], 0, limits)
    with pytest.raises(Overloaded, match="100 bytes"):
        admit([running, job("a", size=50)], 51, limits)


def test_jobs_start_in_their_order_one_at_a_time() -> None:
    first, second = job("first", 1.0), job("second", 2.0)
    started = first.started(3.0, "x")

    assert next_to_start([second, first]) == first
    assert next_to_start([second, started]) is None
    assert next_to_start([second, started.cancelled(4.0, "x")]) == second
    assert next_to_start([]) is None


def test_the_oldest_results_go_by_count_and_by_bytes() -> None:
    done = [
        job(name).started(0.0, "x").succeeded(float(at_s), b"0" * 10)
        for at_s, name in enumerate("abcd")
    ]

    assert to_forget(done, JobLimits(max_kept=3)) == ("a",)
    assert set(to_forget(done, JobLimits(max_kept_bytes=25))) == {"a", "b"}
    assert to_forget([*done, job("waits")], JobLimits()) == ()


def test_what_the_last_searches_chose_stays_on_disk() -> None:
    done = [
        job(name, request=SEARCH).started(0.0, "x").succeeded(float(at_s), b"")
        for at_s, name in enumerate("abc")
    ]
    failed = job("f", request=SEARCH).started(0.0, "x").failed(9.0, "EngineFailed", "no")
    profiled = job("p").started(0.0, "x").succeeded(9.0, b"")
    running = job("r", request=SEARCH).started(0.0, "x")

    kept = with_artefact([*done, failed, profiled, running], JobLimits(max_artefacts=2))

    assert kept == {"b", "c", "r"}


def test_a_job_takes_a_free_core_or_runs_after_everybody_and_a_gpu_is_its_own() -> None:
    own = reserve(PROFILE, {"CPU": 1.5}, {"CPU": 2})
    beside = reserve(PROFILE, {"CPU": 0.9}, {"CPU": 2})
    gpu = reserve(
        SEARCH.model_copy(update={"target_device": "cuda"}), {"CPU": 4}, {"CPU": 8, "GPU": 1}
    )

    assert (own.num_cpus, own.num_gpus, own.nice) == (1, 0, 10)
    assert (beside.num_cpus, beside.nice) == (0, 19)
    assert "goes first" in beside.reason
    assert (gpu.num_cpus, gpu.num_gpus) == (1, 1)
    with pytest.raises(InvalidRequest, match="no GPU; allowed here: cpu"):
        reserve(SEARCH.model_copy(update={"target_device": "cuda"}), {"CPU": 4}, {"CPU": 8})


def test_a_search_for_several_gpus_reserves_all_of_them_on_its_node() -> None:
    def of(options: dict[str, int]) -> OptimizeRequest:
        changed = {"target_device": "multi_gpu", "options": options}
        return SEARCH.model_copy(update=changed)

    whole = {"CPU": 8, "GPU": 4}

    assert reserve(of({}), {"CPU": 4}, whole).num_gpus == 2
    assert reserve(of({"num_gpus": 1}), {"CPU": 4}, whole).num_gpus == 2
    assert reserve(of({"num_gpus": 4}), {"CPU": 4}, whole).num_gpus == 4
    with pytest.raises(InvalidRequest, match=r"takes 8 GPUs here, and the cluster has 4"):
        reserve(of({"num_gpus": 8}), {"CPU": 4}, whole)
