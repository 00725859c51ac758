from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.optimization.samples import (
    Review,
    held_out_reviews,
    imagenet_photos,
    movie_reviews,
    split_reviews,
)


def review(number: int, rating: float = 1.0) -> Review:
    return Review(number=str(number), text=f"line {number}", rating=rating)


def put_reviews(root: Path, text: str) -> None:
    folder = root / ".samples" / "movie-reviews"
    folder.mkdir(parents=True)
    (folder / "movieReviewSnippets_GroundTruth.txt").write_bytes(text.encode("latin-1"))


def test_split_is_the_same_for_ever() -> None:
    split = split_reviews(tuple(review(n) for n in range(1, 11)), num_train=4)
    assert [r.number for r in split.train] == ["2", "3", "1", "10"]
    assert [r.number for r in split.test] == ["7", "8", "4", "9", "6", "5"]


def test_split_does_not_depend_on_the_order_of_the_file() -> None:
    reviews = tuple(review(n) for n in range(50))
    assert split_reviews(reviews, num_train=9) == split_reviews(reviews[::-1], num_train=9)


def test_undecided_reviews_are_in_neither_part() -> None:
    split = split_reviews((review(1, 0.4), review(2, -0.5), review(3, 0.5)), num_train=1)
    assert sorted(r.number for r in split.train + split.test) == ["2", "3"]


def test_reviews_are_read_as_latin_1_and_the_last_line_counts(tmp_path: Path) -> None:
    put_reviews(tmp_path, "1_1\t-1.5\tclich\xe9 \x85 again\n1_2\t2.25\ta\tb")
    assert movie_reviews(tmp_path) == (
        Review(number="1_1", text="clich\xe9 \x85 again", rating=-1.5),
        Review(number="1_2", text="a\tb", rating=2.25),
    )


def test_photos_carry_the_class_in_their_name(tmp_path: Path) -> None:
    folder = tmp_path / ".samples" / "foolbox"
    folder.mkdir(parents=True)
    for name in ("imagenet_01_559.jpg", "imagenet_00_243.jpg", "mnist_00_7.png"):
        (folder / name).touch()
    assert [(p.path.name, p.classes) for p in imagenet_photos(tmp_path)] == [
        ("imagenet_00_243.jpg", (243,)),
        ("imagenet_01_559.jpg", (559,)),
    ]


def test_absent_samples_say_how_to_get_them(tmp_path: Path) -> None:
    for read in (imagenet_photos, movie_reviews, held_out_reviews):
        with pytest.raises(ConfigError, match="squadron models fetch"):
            read(tmp_path)
