"""The routing table: what every door knows about every model name.

The controller publishes a new one when anything changes; a door keeps its last one for as long as
it has to. `version` grows with every change, also across restarts of the controller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cluster.config.cache import ResponseCacheConfig
from cluster.config.ensemble import EnsembleConfig
from cluster.config.experiment import ExperimentConfig
from cluster.config.language.settings import LanguageConfig, RoutingConfig
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.sequences import SequencesConfig
from cluster.config.squadron import SquadronConfig
from cluster.config.variant import BatchingConfig, VariantConfig
from cluster.errors import ConfigError
from cluster.models import ModelState, ShardFacts
from cluster.routing.arms import check_arms
from cluster.routing.depends import circle_of, members_of
from cluster.routing.ensembles.plan import EnsemblePlan, plan_ensemble
from cluster.routing.split import Arm
from cluster.routing.versions import Served, check_versions, versions_by_model
from cluster.tensors import Signature

_NO_CACHE = ResponseCacheConfig()
_BY_PREFIX = RoutingConfig()
UNLOADED = "unloaded"
"""The reason of a model that was unloaded at run time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFacts:
    """What the store and the config say of one variant, before anything runs.

    `unavailable` is the reason why it cannot be served here (empty: it can). `labels` are the class
    names of the card's postprocessing, `output_labels` those of the artefact's own outputs.
    `is_colocated`: the doors hold it themselves. `is_decoupled`: a request has any number of
    responses. `fingerprint`: equal ones compute the same. `is_language`: it generates text, with
    `adapters`; more may lie in `adapter_folder`. `max_model_len`: tokens that it takes, of a prompt
    and its answer or of a text; 0: unknown. `tokenizer`: a text model's file. `placement`: why its
    replicas are cut into `shards`. `artefact_bytes`: here, or 0. `made`: precision, recipe.
    """

    version: str
    platform: str
    backend: str
    signature: Signature
    is_batched: bool
    labels: tuple[bytes, ...] = ()
    output_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unavailable: str = ""
    is_colocated: bool = False
    is_decoupled: bool = False
    fingerprint: str = ""
    is_language: bool = False
    adapters: tuple[str, ...] = ()
    adapter_folder: str = ""
    max_model_len: int = 0
    tokenizer: str = ""
    placement: str = ""
    made: tuple[str, str] = ("", "")
    shards: tuple[ShardFacts, ...] = ()
    artefact_bytes: int = 0

    @property
    def class_names(self) -> tuple[bytes, ...]:
        """Of the card's postprocessing, else of the only output that has some."""
        if self.labels or len(self.output_labels) != 1:
            return self.labels
        return tuple(name.encode() for name in next(iter(self.output_labels.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRoute:
    """`app`: the Serve application of the deployment; empty: the door's own. With
    `scaling`, `num_replicas` is what runs, and with none its requests are held until one does;
    `rows_at_once`: what a replica computes together; `memory_bytes`: of a replica, 0 where nothing
    says it. Deployment names are unique across applications. `version_of`: the model that callers
    know it as a version of."""

    name: str
    deployment: str
    facts: VariantFacts
    batching: BatchingConfig
    num_replicas: int
    is_optional: bool
    sequences: SequencesConfig | None = None
    state: ModelState = "LOADING"
    reason: str = ""
    response_cache: ResponseCacheConfig = _NO_CACHE
    app: str = ""
    language_routing: RoutingConfig = _BY_PREFIX
    scaling: AutoscalingConfig | None = None
    rows_at_once: int = 1
    memory_bytes: int = 0
    version_of: str = ""

    @property
    def model(self) -> str:
        """The name that callers know it by."""
        return self.version_of or self.name

    @property
    def is_autoscaled(self) -> bool:
        return self.scaling is not None

    @property
    def is_streamed(self) -> bool:
        return self.facts.is_decoupled

    @property
    def signature(self) -> Signature:
        return self.facts.signature

    @property
    def class_labels(self) -> Mapping[str, tuple[str, ...]]:
        """Output -> the names of its classes, for the classification extension."""
        names = tuple(label.decode() for label in self.facts.labels)
        extra = {spec.name: names for spec in self.signature.extra_outputs} if names else {}
        return {**self.facts.output_labels, **extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRoute:
    """The public face of an experiment is that of its first arm that can be served; no arm is an
    ensemble if `is_of_variants`. `arms` have the weights in force; `config` says the rest."""

    name: str
    arms: tuple[Arm, ...]
    sticky_header: str
    signature: Signature
    is_of_variants: bool = True
    is_streamed: bool = False
    config: ExperimentConfig | None = None

    @property
    def weights(self) -> dict[str, float]:
        return {arm.variant: arm.weight for arm in self.arms}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleRoute:
    name: str
    plan: EnsemblePlan
    response_cache: ResponseCacheConfig = _NO_CACHE

    @property
    def is_streamed(self) -> bool:
        return self.plan.stream is not None

    @property
    def signature(self) -> Signature:
        return self.plan.signature


Route = VariantRoute | ExperimentRoute | EnsembleRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """`unloaded`: names that are known and that nobody can call until they are loaded."""

    version: int
    routes: Mapping[str, Route]
    unloaded: Mapping[str, Route] = field(default_factory=dict)
    _versions: Mapping[str, Mapping[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = versions_by_model(_served({**self.unloaded, **self.routes}))
        object.__setattr__(self, "_versions", found)

    def versions_of(self, model: str) -> Mapping[str, str]:
        """Version -> the name of its route, rising; loaded or not. The last is the one without a
        version; empty for a name that is itself a version of another, or unknown."""
        return self._versions.get(model, {})

    def known(self, name: str) -> Route:
        """The route of a name, loaded or not. Raises: KeyError."""
        found = self.routes.get(name)
        return self.unloaded[name] if found is None else found

    def variants_of(self, name: str) -> tuple[VariantRoute, ...]:
        """Every variant that an answer of this model may need."""
        match self.known(name):
            case VariantRoute() as route:
                return (route,)
            case ExperimentRoute(arms=arms):
                return tuple(v for arm in arms for v in self.variants_of(arm.variant))
            case EnsembleRoute(plan=plan):
                return tuple(v for model in plan.models for v in self.variants_of(model))

    def state_of(self, name: str) -> tuple[ModelState, str]:
        """The worst state of the variants it needs, with that one's reason."""
        if name in self.unloaded:
            return "UNAVAILABLE", UNLOADED
        variants = self.variants_of(name)
        for state in ("UNAVAILABLE", "LOADING"):
            for variant in variants:
                if variant.state == state:
                    named = "" if variant.name == name else f"{variant.name}: "
                    return variant.state, named + variant.reason
        return "READY", ""

    def not_ready(self) -> tuple[str, ...]:
        """Why the server is not ready: required variants that do not serve yet."""
        return tuple(
            f"{route.name} is {route.state}: {route.reason}"
            for route in self.routes.values()
            if isinstance(route, VariantRoute) and route.state != "READY" and not route.is_optional
            if route.num_replicas > 0
        )

    def with_states(
        self,
        states: Mapping[str, tuple[ModelState, str]],
        *,
        version: int,
        replicas: Mapping[str, int] | None = None,
    ) -> RoutingTable:
        """The same routes with the variants' states, and numbers of replicas, as observed."""
        routes: dict[str, Route] = {}
        for name, route in self.routes.items():
            if isinstance(route, VariantRoute) and name in states:
                state, reason = states[name]
                route = replace(route, state=state, reason=reason)
            if isinstance(route, VariantRoute) and replicas and name in replicas:
                route = replace(route, num_replicas=replicas[name])
            routes[name] = route
        return replace(self, version=version, routes=routes)

    def with_weights(self, weights: Mapping[str, Mapping[str, float]]) -> RoutingTable:
        """The same routes, the experiments of `weights` split by them."""
        routes = dict(self.routes)
        for name, split in weights.items():
            route = routes.get(name)
            if isinstance(route, ExperimentRoute):
                routes[name] = replace(route, arms=arms_of(split))
        return replace(self, routes=routes)

    def without(self, names: Collection[str]) -> RoutingTable:
        """The same routes, those of `names` set aside as unloaded."""
        unloaded: dict[str, Route] = {}
        for name in names:
            route = self.known(name)
            if isinstance(route, VariantRoute):
                route = replace(route, state="UNAVAILABLE", reason=UNLOADED)
            unloaded[name] = route
        routes = {name: route for name, route in self.routes.items() if name not in unloaded}
        return replace(self, routes=routes, unloaded={**self.unloaded, **unloaded})


def version_of(route: Route) -> str:
    """Experiments and ensembles have one, which is not that of an artefact."""
    return route.facts.version if isinstance(route, VariantRoute) else "1"


def _served(routes: Mapping[str, Route]) -> Iterator[Served]:
    for name, route in routes.items():
        model = route.model if isinstance(route, VariantRoute) else name
        yield Served(route=name, model=model, version=version_of(route))


def arms_of(weights: Mapping[str, float]) -> tuple[Arm, ...]:
    return tuple(Arm(variant=variant, weight=weight) for variant, weight in weights.items())


def _rows_at_once(variant: VariantConfig, facts: VariantFacts) -> int:
    if facts.is_language:
        return (variant.llm or LanguageConfig()).max_num_seqs
    return variant.batching.max_batch_size


GATEWAY = "gateway"
"""The Serve deployment of the doors, and of the models that they hold themselves."""


def deployment_name(variant: str) -> str:
    """The Serve deployment of a variant; '#' and friends of Serve's own naming are not in it."""
    return f"variant-{variant}"


def next_version(now_ns: int, *known: int) -> int:
    """Versions are moments, so that they grow across restarts; and they grow when the clock is set
    back as well: a door takes a smaller one for news that it has had."""
    return max(now_ns, *(each + 1 for each in known))


def build_table(config: SquadronConfig, facts: Mapping[str, VariantFacts]) -> RoutingTable:
    """Version 0: every name of the config, nothing observed yet.

    Raises: ConfigError for an ensemble that does not fit its members or arms that differ.
    """
    routes: dict[str, Route] = {}
    for name, variant in config.variants.items():
        fact, scaling = facts[name], variant.autoscaling
        routes[name] = VariantRoute(
            name=name,
            deployment=GATEWAY if fact.is_colocated else deployment_name(name),
            facts=fact,
            batching=variant.batching,
            num_replicas=(variant.replicas if scaling is None else scaling.first_replicas),
            scaling=scaling,
            rows_at_once=_rows_at_once(variant, fact),
            memory_bytes=variant.resources.memory_bytes or 0,
            is_optional=variant.optional,
            sequences=variant.sequences,
            state="UNAVAILABLE" if fact.unavailable else "LOADING",
            reason=fact.unavailable or "waiting for its first replica",
            response_cache=variant.response_cache,
            language_routing=variant.llm.routing if variant.llm is not None else _BY_PREFIX,
            version_of=variant.version_of,
        )
    there = {name: route for name, route in routes.items() if not facts[name].unavailable}
    check_versions(_served(there))
    labels = {name: found for name, fact in facts.items() if (found := fact.class_names)}
    decoupled = frozenset(name for name, fact in facts.items() if fact.is_decoupled)
    signatures = {name: route.signature for name, route in routes.items()}
    waiting: dict[str, ExperimentConfig | EnsembleConfig] = {
        **config.experiments,
        **config.ensembles,
    }
    while waiting:
        ready = [n for n, each in waiting.items() if members_of(each) <= signatures.keys()]
        if not ready:
            raise circle_of(waiting)
        for name in ready:
            section = waiting.pop(name)
            if isinstance(section, ExperimentConfig):
                routes[name] = _experiment(name, section, routes)
            else:
                nested = {n for n, route in routes.items() if route.is_streamed} - decoupled
                plan = plan_ensemble(name, section, signatures, labels, decoupled, nested)
                routes[name] = _ensemble(plan, section, routes)
            signatures[name] = routes[name].signature
    return RoutingTable(version=0, routes=routes)


def _experiment(
    name: str, section: ExperimentConfig, routes: Mapping[str, Route]
) -> ExperimentRoute:
    arms = arms_of(section.first_weights())
    mirrored = section.mirror.variants if section.mirror is not None else ()
    there = {each: routes[each] for each in (*section.split, *mirrored) if _is_there(each, routes)}
    streams = {each for each, route in there.items() if route.is_streamed}
    check_arms(name, section, {each: route.signature for each, route in there.items()}, streams)
    shown = next((arm.variant for arm in arms if arm.variant in there), arms[0].variant)
    return ExperimentRoute(
        name=name,
        arms=arms,
        sticky_header=section.sticky_header.lower(),
        signature=routes[shown].signature,
        is_of_variants=all(isinstance(routes[arm.variant], VariantRoute) for arm in arms),
        is_streamed=not streams.isdisjoint(section.split),
        config=section,
    )


def _is_there(name: str, routes: Mapping[str, Route]) -> bool:
    """Whether all that an answer may need can be served here."""
    match routes.get(name):
        case None:
            return False
        case VariantRoute(facts=facts):
            return not facts.unavailable
        case ExperimentRoute(arms=arms):
            return all(_is_there(arm.variant, routes) for arm in arms)
        case EnsembleRoute(plan=plan):
            return all(_is_there(model, routes) for model in plan.models)


def _ensemble(
    plan: EnsemblePlan, section: EnsembleConfig, routes: Mapping[str, Route]
) -> EnsembleRoute:
    cache = section.response_cache
    meets = _meets_experiment(plan.models, routes)
    varies = "an experiment is among its models" if meets else plan.varies
    if cache.enabled and (varies or plan.stream is not None):
        key = f"ensembles.{plan.name}.response_cache.enabled"
        raise ConfigError(
            f"{key}: {varies or 'it streams'}, and a kept answer would be everybody's",
            key=key,
            value="True",
            allowed="false; the switches of the variants themselves",
        )
    return EnsembleRoute(name=plan.name, plan=plan, response_cache=cache)


def _meets_experiment(models: Iterable[str], routes: Mapping[str, Route]) -> bool:
    return any(
        isinstance(route, ExperimentRoute)
        or (
            isinstance(route, EnsembleRoute)
            and (bool(route.plan.varies) or _meets_experiment(route.plan.models, routes))
        )
        for route in map(routes.__getitem__, models)
    )
