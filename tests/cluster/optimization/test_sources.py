from __future__ import annotations

from typing import Any

import pytest

from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.optimization.sources import Sources, load_sources


def manifest(**changes: Any) -> dict[str, Any]:
    archive = {
        "package": "p",
        "version": "1",
        "file": "p-1.whl",
        "sha256": "0" * 64,
        "licence": "MIT",
        "holds": "x",
    }
    encoder = {"kind": "encoder", "directory": {"archive": "a", "path": "m"}}
    models = {
        "small": {"recipe": {"kind": "dynamic-int8", "source": "large"}},
        "large": {"recipe": encoder},
    }
    return {"archives": {"a": archive}, "samples": {}, "models": models} | changes


def sources(**changes: Any) -> Sources:
    return check_section(manifest(**changes), Sources, source="sources.yaml")


def test_shipped_manifest_makes_every_example_model_after_what_it_is_made_from() -> None:
    shipped = load_sources()
    order = shipped.in_order()
    assert set(order) == set(shipped.models)
    assert order.index("efficientnet-lite0") < order.index("efficientnet-lite0-int8")
    assert order.index("all-minilm-l6-v2") < order.index("sentiment-head")


def test_nothing_is_calibrated_or_trained_on_the_sanity_photos() -> None:
    for model in load_sources().models.values():
        assert getattr(model.recipe, "calibration", "") != "foolbox"
        assert getattr(model.recipe, "reviews", "") != "foolbox"


def test_what_a_model_is_made_from_comes_first_and_once() -> None:
    assert sources().in_order() == ("large", "small")
    assert sources().in_order(("small", "large")) == ("large", "small")
    assert sources().in_order(("large",)) == ("large",)


def test_unknown_model_names_those_that_can_be_made() -> None:
    with pytest.raises(ConfigError, match=r"'tiny'.*can make: small, large"):
        sources().in_order(("tiny",))


def test_models_made_from_each_other_are_refused() -> None:
    circle = {
        "a": {"recipe": {"kind": "dynamic-int8", "source": "b"}},
        "b": {"recipe": {"kind": "dynamic-int8", "source": "a"}},
    }
    with pytest.raises(ConfigError, match="a -> b"):
        sources(models=circle).in_order()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"archives": {}}, "no archive 'a'"),
        ({"models": {"x": {"recipe": {"kind": "dynamic-int8", "source": "y"}}}}, "made from 'y'"),
        (
            {"samples": {"s": {"archive": "b", "pattern": "*", "licence": "MIT"}}},
            "samples.s: no archive 'b'",
        ),
    ],
)
def test_names_that_lead_nowhere_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sources(**changes)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_member_paths_stay_inside_the_archive(path: str) -> None:
    recipe = {"kind": "encoder", "directory": {"archive": "a", "path": path}}
    with pytest.raises(ConfigError, match="inside the archive"):
        sources(models={"m": {"recipe": recipe}})
