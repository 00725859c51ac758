from __future__ import annotations

from typing import Any

from cluster.config.squadron import SquadronConfig
from cluster.config.variant import VariantConfig
from cluster.control.reconcile import DeploymentSeen
from cluster.control.repository import (
    AppAction,
    Setting,
    Settings,
    Wanted,
    app_state,
    desire,
    members_of,
    plan_apps,
    section_digest,
)


def config(**variants: dict[str, Any]) -> SquadronConfig:
    every = {"a": {"source": "a"}, "b": {"source": "b"}, **variants}
    steps = [
        {"model": "a", "outputs": {"y": "h"}},
        {"model": "b", "inputs": {"x": "h"}, "outputs": {"y": "z"}},
    ]
    outer = [{"model": "both", "outputs": {"z": "w"}}]
    return SquadronConfig.model_validate(
        {
            "variants": every,
            "experiments": {"ab": {"split": {"a": 1, "b": 1}}},
            "ensembles": {
                "both": {"inputs": ["x"], "outputs": ["z"], "steps": steps},
                "outer": {"inputs": ["x"], "outputs": ["w"], "steps": outer},
            },
        }
    )


def asked(of: SquadronConfig, name: str, **fields: Any) -> Settings:
    setting = Setting(section=section_digest(of, name), **fields)
    return Settings().with_setting(name, setting)


OVERRIDE = VariantConfig.model_validate({"source": "a", "batching": {"max_batch_size": 16}})


def test_nothing_asked_is_the_configuration() -> None:
    desired = desire(config(), Settings())

    assert desired.variants == {name: Wanted(variant=v) for name, v in config().variants.items()}
    assert desired.unloaded == frozenset()


def test_an_override_replaces_the_variant_and_an_unloaded_one_stays_known() -> None:
    of = config()

    assert desire(of, asked(of, "a", is_loaded=True, variant=OVERRIDE)).variants["a"] == Wanted(
        variant=OVERRIDE
    )
    unloaded = desire(of, asked(of, "a", is_loaded=False))
    assert (set(unloaded.variants), unloaded.unloaded) == ({"a", "b"}, {"a"})


def test_a_setting_ends_when_its_section_of_the_configuration_changes() -> None:
    settings = asked(config(), "a", is_loaded=True, variant=OVERRIDE)
    changed_elsewhere = config(b={"source": "b", "replicas": 2})
    changed = config(a={"source": "a", "replicas": 2})

    assert desire(changed_elsewhere, settings).variants["a"].variant == OVERRIDE
    assert desire(changed, settings).variants["a"].variant.replicas == 2


def test_a_model_that_the_configuration_has_not_is_served_until_it_gets_a_section() -> None:
    own = VariantConfig(source="c")
    settings = asked(config(), "c", is_loaded=True, variant=own, store="/uploads/c")

    assert desire(config(), settings).variants["c"] == Wanted(variant=own, store="/uploads/c")
    with_section = config(c={"source": "c", "replicas": 2})
    assert desire(with_section, settings).variants["c"].store == ""


def test_settings_survive_as_json() -> None:
    settings = asked(config(), "a", is_loaded=True, variant=OVERRIDE, store="/s")

    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_members_are_found_through_all_levels() -> None:
    assert members_of(config(), "outer") == ("both", "a", "b")
    assert members_of(config(), "ab") == ("a", "b")
    assert members_of(config(), "a") == ()


def test_an_application_is_named_after_all_that_it_serves() -> None:
    wanted = Wanted(variant=OVERRIDE)
    names = {
        wanted.app("s+", "a", "sha"),
        wanted.app("s+", "a", "other sha"),
        Wanted(variant=OVERRIDE, store="/s").app("s+", "a", "sha"),
        Wanted(variant=VariantConfig(source="a")).app("s+", "a", "sha"),
    }

    assert len(names) == 4
    assert wanted.app("s+", "a", "sha") == Wanted(variant=OVERRIDE).app("s+", "a", "sha")


def planned(
    wanted: dict[str, str], serving: dict[str, str], *running: str, is_at_rest: bool = True
) -> list[tuple[str, str]]:
    actions: tuple[AppAction, ...] = plan_apps(
        wanted, serving, running, prefix="s+", is_at_rest=is_at_rest
    )
    return [("deploy" if each.is_deploy else "delete", each.app) for each in actions]


def test_what_is_wanted_is_deployed_once() -> None:
    assert planned({"a": "s+a@1"}, {}) == [("deploy", "s+a@1")]
    assert planned({"a": "s+a@1"}, {"a": "s+a@1"}, "s+a@1", "s") == []


def test_the_old_application_stays_while_it_serves_and_until_the_doors_are_at_rest() -> None:
    assert planned({"a": "s+a@2"}, {"a": "s+a@1"}, "s+a@1", "s+a@2") == []
    both = ("s+a@1", "s+a@2")
    assert planned({"a": "s+a@2"}, {"a": "s+a@2"}, *both, is_at_rest=False) == []
    assert planned({"a": "s+a@2"}, {"a": "s+a@2"}, *both) == [("delete", "s+a@1")]


def test_applications_of_others_are_left_alone() -> None:
    assert planned({}, {}, "s", "other", "other+a@1", "s+gone@1") == [("delete", "s+gone@1")]


def seen(status: str, num_running: int = 0) -> DeploymentSeen:
    return DeploymentSeen(status=status, num_running=num_running, num_starting=0, message="why")


def test_the_state_is_that_of_its_replicas() -> None:
    assert app_state(None)[0] == "LOADING"
    assert app_state(seen("UPDATING"))[0] == "LOADING"
    assert app_state(seen("UNHEALTHY"))[0] == "LOADING"
    assert app_state(seen("UPDATING", 1)) == ("READY", "")
    assert app_state(seen("DEPLOY_FAILED")) == ("UNAVAILABLE", "why")
    assert app_state(seen("UPSCALING"))[0] == "LOADING"
    assert app_state(seen("HEALTHY"))[0] == "READY"
    assert "scaled to zero" in app_state(seen("HEALTHY"))[1]
