"""The placement of many models on one cluster, searched with a simulator in the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cluster.placement.search.buckets import buckets, class_of, seconds_alone, share_out
from cluster.placement.search.candidate import Candidate, Evaluate
from cluster.placement.search.describe import describe
from cluster.placement.search.facts import Demand
from cluster.placement.search.fill import Effort, Filled, NoRoom, fill
from cluster.placement.search.fixed import fixed_layouts, leave_all_aside, settle
from cluster.placement.search.groups import Layout, cuts_of, layouts
from cluster.placement.search.plan import Plan, Rejected, Shortage
from cluster.placement.search.shortage import shortage
from cluster.topology import Site, Topology
from cluster.units import human_seconds

GIVE_UP = 0.02
"""Groups of a size whose best shape is this much worse than the best so far end the search for
larger ones, whose requests take longer still. In `loadtests.placement.scale` without it, shapes
fell from 97 % at 16 devices a group to 86 % at 32 and 42 % at 64."""

Progress = Callable[[str, int, int], None]


def effort_of(num_models: int, num_devices: int) -> Effort:
    """One copy between two simulations where that is affordable, more with more models."""
    if num_models * num_devices <= 1024:
        return Effort(patience=num_devices)
    return Effort(batch=max(1, num_models // 16), patience=3, worth=1e-4)


def find_plan(
    topology: Topology,
    demands: tuple[Demand, ...],
    evaluate: Evaluate,
    *,
    effort: Effort | None = None,
    is_allowed: Callable[[Layout], bool] = lambda layout: True,
    progress: Progress = lambda what, done, total: None,
) -> Plan | Shortage:
    """Two levels, as AlpaServe has them: how the devices are divided into groups and how groups
    run a model outside, which models go where inside. `is_allowed` narrows the first.

    A placement that is `fixed` is kept where there are devices of its own for it, and left aside
    with the reason where not."""
    effort = effort or effort_of(len(demands), len(topology.sites()))
    demands = settle(topology, demands)
    search = _Search(topology, demands, evaluate, effort, is_allowed, progress)
    if any(demand.kept for demand in demands):
        models = tuple(range(len(demands)))
        best = search.best_among(fixed_layouts(topology, demands), models, "")
        if best is not None:
            return describe(best, demands, tuple(search.rejected), search.num_simulated)
        demands = leave_all_aside(demands, search.rejected)
        search = _Search(topology, demands, evaluate, effort, is_allowed, progress)
    best = search.best_of(topology.sites(), tuple(range(len(demands))), "")
    mixed = search.in_buckets()
    if mixed is not None and (best is None or mixed.score > best.score):
        if best is not None:
            search.reject(best, mixed)
        best = mixed
    elif mixed is not None and best is not None:
        search.reject(mixed, best)
    if best is None:
        return shortage(topology, demands, tuple(search.rejected))
    return describe(best, demands, tuple(search.rejected), search.num_simulated)


class _Search:
    """One search: what was tried, and why it was not taken."""

    def __init__(
        self,
        topology: Topology,
        demands: tuple[Demand, ...],
        evaluate: Evaluate,
        effort: Effort,
        is_allowed: Callable[[Layout], bool],
        progress: Progress,
    ) -> None:
        self.rejected: list[Rejected] = []
        self.num_simulated = 0
        self._topology = topology
        self._demands = demands
        self._evaluate = evaluate
        self._effort = effort
        self._is_allowed = is_allowed
        self._progress = progress

    def best_of(
        self, sites: tuple[Site, ...], models: tuple[int, ...], about: str
    ) -> Filled | None:
        """The best layout of these devices; None when none has a place for all the models."""
        return self.best_among(layouts(self._topology, sites), models, about)

    def best_among(
        self, given: Sequence[Layout], models: tuple[int, ...], about: str
    ) -> Filled | None:
        """The best of these, which are in the order of their sizes."""
        best: Filled | None = None
        every = [layout for layout in given if self._is_allowed(layout)]
        size, best_of_size = 0, 0.0
        for index, layout in enumerate(every):
            self._progress(f"{about}{layout.name}", index, len(every))
            if layout.size != size:
                if best is not None and best_of_size < best.score - GIVE_UP:
                    why = f"groups of {size} were already worse than smaller ones"
                    self.rejected += [
                        Rejected(what=f"{about}{left.name}", why=f"not tried: {why}")
                        for left in every[index:]
                    ]
                    break
                size, best_of_size = layout.size, -1.0
            tried = fill(
                layout, cuts_of(layout, self._demands), models, self._evaluate, self._effort
            )
            if isinstance(tried, NoRoom):
                what = f"{about}{layout.name}"
                self.rejected.append(Rejected(what=what, why=tried.why, no_room=tried.model))
                continue
            self.num_simulated += tried.num_tried
            best_of_size = max(best_of_size, tried.score)
            if best is None:
                best = tried
                continue
            better, worse = (tried, best) if tried.score > best.score else (best, tried)
            self.reject(worse, better, about)
            best = better
        self._progress(f"{about}done", len(every), len(every))
        return best

    def in_buckets(self) -> Filled | None:
        """Models of like speed on devices of their own, where speeds differ."""
        seconds = [seconds_alone(demand, self._topology) for demand in self._demands]
        parts = buckets(self._demands, seconds)
        sites = sorted(self._topology.sites(), key=lambda site: class_of(site.device), reverse=True)
        if len(parts) == 1:
            return None
        shares = share_out(sites, parts, self._demands, seconds)
        if shares is None:
            why = f"{len(sites)} devices cannot be shared between {len(parts)} speeds of models"
            self.rejected.append(Rejected(what="devices of their own for each speed", why=why))
            return None
        found: list[Filled] = []
        for share, part in zip(shares, parts, strict=True):
            slowest = human_seconds(max(seconds[model] for model in part))
            best = self.best_of(share, part, f"[models of up to {slowest}] ")
            if best is None:
                return None
            found.append(best)
        self.num_simulated += 1
        return _together(found, self._evaluate)

    def reject(self, worse: Filled, better: Filled, about: str = "") -> None:
        """Note why one was taken and not the other. Inside a bucket, attainment counts its own."""
        mine, theirs = worse.attainment, better.attainment
        why = f"{mine:.1%} in time against {theirs:.1%} with {better.layout.name}"
        if abs(mine - theirs) < 5e-4:
            slower = worse.found.mean_latency_s - better.found.mean_latency_s
            word = "slower" if slower >= 0 else "faster"
            why += f", {human_seconds(abs(slower))} {word} on average"
        what = f"{about}{worse.layout.name}"
        self.rejected.append(
            Rejected(what=what, why=why, attainment=mine, attained=worse.attained())
        )


def _together(parts: Sequence[Filled], evaluate: Evaluate) -> Filled:
    groups = tuple(group for part in parts for group in part.candidate.groups)
    times = {kind: row for part in parts for kind, row in part.candidate.times.items()}
    candidate = Candidate(
        groups=groups,
        hosted=tuple(models for part in parts for models in part.candidate.hosted),
        times=times,
    )
    grounds = {kind: ground for part in parts for kind, ground in part.layout.grounds.items()}
    name = " + ".join(part.layout.name for part in parts)
    cuts = {kind: row for part in parts for kind, row in part.cuts.by_kind.items()}
    return Filled(
        layout=Layout(name=name, groups=groups, grounds=grounds),
        cuts=replace(parts[0].cuts, by_kind=cuts),
        models=tuple(model for part in parts for model in part.models),
        candidate=candidate,
        found=evaluate(candidate),
        num_tried=1,
    )
