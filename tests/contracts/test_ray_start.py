"""What manifests may say to `ray start`, held against the Ray that is installed."""

from __future__ import annotations

from ray.scripts import scripts

from cluster.kubernetes.pods.start import PARAMETERS


def test_the_parameters_of_ray_start_are_those_of_the_ray_that_is_installed() -> None:
    known = {
        option.removeprefix("--")
        for parameter in scripts.start.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }

    assert {each for each in known if not each.startswith("-")} == PARAMETERS
