"""The recipes that train, without torch until one is built: everyone reads their table."""

from __future__ import annotations

from pathlib import Path

from cluster.optimization.search.recipe import Material


def int8_static(material: Material, folder: Path) -> None:
    from cluster.optimization.training import fake_int8

    fake_int8.static(material, folder)


def int8_dynamic(material: Material, folder: Path) -> None:
    from cluster.optimization.training import fake_int8

    fake_int8.dynamic(material, folder)


def int8_openvino(material: Material, folder: Path) -> None:
    from cluster.optimization.training import fake_int8

    fake_int8.by_openvino(material, folder)
