"""Where the head keeps its state, as the operator wants it said."""

from __future__ import annotations

from cluster.kubernetes.finding import Document
from cluster.kubernetes.operator.rule import Facts, Mistakes, Rule

FT_ENABLED, NAMESPACE = "ray.io/ft-enabled", "ray.io/external-storage-namespace"
_REDIS_FIELDS = ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace")
_OWN_ENV = ("RAY_gcs_storage", "RAY_gcs_storage_path")
_OWN_PATH = "/data/gcs"
_OF_CLAIM = ("size", "storageClassName", "accessModes")


def _options(facts: Facts) -> Document | None:
    found = facts.cluster.get("gcsFaultToleranceOptions")
    return found if isinstance(found, dict) else None


def _is_rocksdb(facts: Facts) -> bool:
    return (_options(facts) or {}).get("backend") == "rocksdb"


def _at(facts: Facts) -> str:
    return f"{facts.base}/gcsFaultToleranceOptions"


def _annotation(facts: Facts) -> Mistakes:
    for name in (FT_ENABLED, NAMESPACE):
        if _options(facts) is not None and facts.annotations.get(name):
            yield (
                f"/metadata/annotations/{name.replace('/', '~1')}",
                f"annotation {name} {facts.annotations[name]!r} beside gcsFaultToleranceOptions; "
                "allowed: the latter alone",
            )


def _redis_parameter(facts: Facts) -> Mistakes:
    given = facts.head.spec.get("rayStartParams") or {}
    if _options(facts) is not None and given.get("redis-password"):
        yield (
            f"{facts.head.path}/rayStartParams/redis-password",
            "rayStartParams.redis-password is set (it would stand in `ps`); allowed: "
            "gcsFaultToleranceOptions.redisPassword",
        )


def _redis_env(facts: Facts) -> Mistakes:
    is_old = str(facts.annotations.get(FT_ENABLED, "")).lower() == "true"
    forbidden: tuple[str, ...] = () if is_old else ("RAY_REDIS_ADDRESS",)
    if _options(facts) is not None:
        forbidden = ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS")
    for name in forbidden:
        if name in facts.head.env():
            yield (
                f"{facts.head.path}/template/spec/containers/0/env",
                f"{name} is set on the head; allowed: redisAddress and redisPassword of "
                "gcsFaultToleranceOptions",
            )


def _redis_username(facts: Facts) -> Mistakes:
    given = facts.head.spec.get("rayStartParams") or {}
    if given.get("redis-username"):
        path = f"{facts.head.path}/rayStartParams/redis-username"
    elif "REDIS_USERNAME" in facts.head.env():
        path = f"{facts.head.path}/template/spec/containers/0/env"
    else:
        return
    yield path, "a user of Redis is set; allowed: gcsFaultToleranceOptions.redisUsername"


def _storage_backend(facts: Facts) -> Mistakes:
    options = _options(facts) or {}
    if options.get("storage") is not None and not _is_rocksdb(facts):
        yield (
            f"{_at(facts)}/storage",
            f"storage with backend {options.get('backend', 'redis')!r}; allowed: with rocksdb only",
        )


def _rocksdb_redis(facts: Facts) -> Mistakes:
    if not _is_rocksdb(facts):
        return
    for name in _REDIS_FIELDS:
        if (_options(facts) or {}).get(name):
            yield (
                f"{_at(facts)}/{name}",
                f"{name} with backend 'rocksdb'; allowed: with backend redis only",
            )


def _rocksdb_own(facts: Facts) -> Mistakes:
    """What the operator adds to the head by itself; its volume's name, which no page says, is not
    looked for."""
    if not _is_rocksdb(facts):
        return
    container = f"{facts.head.path}/template/spec/containers/0"
    for name in _OWN_ENV:
        if name in facts.head.env():
            yield f"{container}/env", f"{name} is the operator's own; allowed: other names"
    for index, mount in enumerate(facts.head.container.get("volumeMounts") or []):
        if mount.get("mountPath") == _OWN_PATH:
            yield (
                f"{container}/volumeMounts/{index}/mountPath",
                f"mountPath {_OWN_PATH} is the operator's own; allowed: other paths",
            )


def _claim(facts: Facts) -> Mistakes:
    storage = (_options(facts) or {}).get("storage") or {}
    both = [name for name in _OF_CLAIM if storage.get(name)]
    if storage.get("claimName") and both:
        yield (
            f"{_at(facts)}/storage/{both[0]}",
            f"{both[0]} {storage[both[0]]!r} beside claimName {storage['claimName']!r}; allowed: "
            "a claim that is there, or what a new one shall be",
        )


FAULT_TOLERANCE = (
    Rule(id="operator-ft-annotation", check=_annotation),
    Rule(id="operator-redis-parameter", check=_redis_parameter),
    Rule(id="operator-redis-env", check=_redis_env),
    Rule(id="operator-redis-username", check=_redis_username),
    Rule(id="operator-storage-backend", check=_storage_backend),
    Rule(id="operator-rocksdb-redis", check=_rocksdb_redis),
    Rule(id="operator-rocksdb-own", check=_rocksdb_own),
    Rule(id="operator-storage-claim", check=_claim),
)
