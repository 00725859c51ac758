from __future__ import annotations

from cluster.optimization.quantise import crop_box


def test_first_crop_is_the_whole_picture() -> None:
    assert crop_box(640, 480, 0) == (0, 0, 640, 480)


def test_other_crops_are_squares_along_the_diagonal() -> None:
    assert [crop_box(200, 100, index) for index in (1, 2, 3)] == [
        (0, 0, 70, 70),
        (65, 15, 135, 85),
        (130, 30, 200, 100),
    ]
