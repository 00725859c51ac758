from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.config.model_card import ClassifyPostprocess
from cluster.errors import ConfigError
from cluster.processing.classify import Classifier, softmax
from cluster.tensors import TensorSpec

LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 4))
ALL = {"labels", "scores", "probabilities"}


def classifier(folder: Path, top_k: int = 2, classes: int = 4) -> Classifier:
    (folder / "labels.txt").write_text("\n".join("abcd"[:classes]) + "\n", encoding="utf-8")
    return Classifier(ClassifyPostprocess(input="logits", top_k=top_k), folder, LOGITS)


def test_known_probabilities() -> None:
    found = softmax(np.log(np.array([[1, 2, 3, 4], [1, 1, 1, 1]], np.float64)))

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.1, 0.2, 0.3, 0.4], [0.25] * 4], rtol=1e-6)


def test_logits_of_any_size_give_probabilities() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e30, -1e30]], np.float32)), [[1, 0]])
    np.testing.assert_array_equal(softmax(np.array([[6e4, 6e4]], np.float16)), [[0.5, 0.5]])
    infinite = np.array([[np.inf, 0], [-np.inf, 0], [-np.inf, -np.inf], [np.inf, np.inf]])
    np.testing.assert_array_equal(softmax(infinite), [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])


def test_the_best_labels_come_first_and_of_equals_the_lower_index(tmp_path: Path) -> None:
    logits = np.log(np.array([[1, 4, 3, 2], [1, 2, 1, 2]], np.float32))
    found = classifier(tmp_path).finish({"logits": logits}, ALL)

    assert found["labels"].tolist() == [[b"b", b"c"], [b"b", b"d"]]
    np.testing.assert_allclose(found["scores"], [[0.4, 0.3], [1 / 3, 1 / 3]], rtol=1e-6)
    assert found["scores"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), [1, 1], rtol=1e-6)


def test_labels_are_not_looked_up_for_those_who_want_probabilities(tmp_path: Path) -> None:
    found = classifier(tmp_path).finish({"logits": np.zeros((1, 4))}, {"probabilities"})

    assert list(found) == ["probabilities"]


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 labels for the 4 classes of output 'logits'"):
        classifier(tmp_path, classes=3)
    with pytest.raises(ConfigError, match="top_k is 5, more than the 4 labels"):
        classifier(tmp_path, top_k=5)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ConfigError, match=r"labels\.txt: the labels cannot be read"):
        Classifier(ClassifyPostprocess(input="logits"), tmp_path, LOGITS)
