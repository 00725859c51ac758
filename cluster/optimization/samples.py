"""Sample data under `<store>/.samples/<name>/`: photos and rated sentences, and how they are split.

ImageNet photos are read and never republished; nothing here is used to calibrate or train what it
tests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cluster.config.store import new_folder
from cluster.errors import ConfigError
from cluster.optimization.archive import extract_matching
from cluster.optimization.download import ArchiveCache
from cluster.optimization.sources import Sources

SAMPLES_FOLDER = ".samples"
SPLIT_SEED = 2014
"""The year of the review ratings; changing it changes the sentiment head and its test set."""
MIN_RATING = 0.5
NUM_TRAIN = 1500

DEMO_LABELS: dict[str, tuple[int, ...]] = {
    "chelsea.png": (281, 282, 285),
    "coffee.png": (967,),
    "rocket.jpg": (657, 744, 812),
    "motorcycle_left.png": (670, 665, 535, 518),
    "camera.png": (872, 759),
}
"""scikit-image picture -> ImageNet classes that count as right. Assigned by us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A picture and the ImageNet-1k classes (0..999) that count as right, best first."""

    path: Path
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One rated line. `rating`: mean of about 20 people, -4 (negative) to 4 (positive)."""

    number: str
    text: str
    rating: float

    @property
    def is_positive(self) -> bool:
        return self.rating > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSplit:
    train: tuple[Review, ...]
    test: tuple[Review, ...]


def install_samples(name: str, sources: Sources, cache: ArchiveCache, root: Path) -> bool:
    """Put one sample set into the store; false when it is there already.

    Raises: ConfigError as the archive cache and the archive reader do.
    """
    folder = root / SAMPLES_FOLDER / name
    if folder.is_dir():
        return False
    source = sources.samples[name]
    archive = cache.get(sources.archives[source.archive])
    with new_folder(folder) as partial:
        extract_matching(archive, source.pattern, partial, inner=source.inner)
    return True


def sample_file(root: Path, name: str, file: str) -> Path:
    """A file of a sample set. Raises: ConfigError when it has not been fetched."""
    path = root / SAMPLES_FOLDER / name / file
    if not path.is_file():
        raise _absent(path)
    return path


def imagenet_photos(root: Path) -> tuple[Photo, ...]:
    """The 20 Foolbox photos (ImageNet validation, 512 × 512), in order of their number.

    They catch broken preprocessing, label order or exports; they cannot rank models.
    """
    folder = root / SAMPLES_FOLDER / "foolbox"
    paths = sorted(folder.glob("imagenet_*.jpg"))
    if not paths:
        raise _absent(folder)
    return tuple(Photo(path=path, classes=(int(path.stem.split("_")[2]),)) for path in paths)


def demo_photos(root: Path) -> tuple[Photo, ...]:
    """Five scikit-image pictures that are free to show, with labels of our own."""
    return tuple(
        Photo(path=sample_file(root, "scikit-image", file), classes=classes)
        for file, classes in DEMO_LABELS.items()
    )


def movie_reviews(root: Path) -> tuple[Review, ...]:
    """Every rated movie review line, in file order.

    Source: Hutto and Gilbert, ICWSM 2014 (10,605 snippets, latin-1).
    """
    path = sample_file(root, "movie-reviews", "movieReviewSnippets_GroundTruth.txt")
    reviews = []
    # Split on newlines only: latin-1 has a 0x85 that str.splitlines() takes for an end of line.
    for line in path.read_text(encoding="latin-1").split("\n"):
        if line.strip():
            number, rating, text = line.split("\t", 2)
            reviews.append(Review(number=number, text=text.strip(), rating=float(rating)))
    return tuple(reviews)


def split_reviews(
    reviews: tuple[Review, ...], *, num_train: int = NUM_TRAIN, seed: int = SPLIT_SEED
) -> ReviewSplit:
    """The reviews that people felt strongly about (|rating| >= 0.5), shuffled and cut in two.

    The order is that of SHA-256("seed:number"): the same on every machine, Python and numpy, for
    good. Every prefix of `test` is a random sample of it.
    """
    decided = [review for review in reviews if abs(review.rating) >= MIN_RATING]

    def place(review: Review) -> bytes:
        return hashlib.sha256(f"{seed}:{review.number}".encode()).digest()

    shuffled = sorted(decided, key=place)
    return ReviewSplit(train=tuple(shuffled[:num_train]), test=tuple(shuffled[num_train:]))


def held_out_reviews(root: Path, limit: int | None = None) -> tuple[Review, ...]:
    """Reviews that the sentiment head was not trained on; the first `limit` of them."""
    return split_reviews(movie_reviews(root)).test[:limit]


def _absent(path: Path) -> ConfigError:
    return ConfigError(f"{path}: not there; run: squadron models fetch", file=str(path))
