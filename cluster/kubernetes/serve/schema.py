"""`serveConfigV2` against Ray Serve's own schema, which itself passes unknown keys in silence.

The schema comes as data (JSON Schema of `ray.serve.schema.ServeDeploySchema`), as KubeRay's CRDs
do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from cluster.config.security.references import WHY
from cluster.config.security.secret_names import secret_variables
from cluster.config.serve_file import IMPORT_PATH
from cluster.config.yaml_file import parse_yaml
from cluster.kubernetes.finding import Document, Finding

PATH = "/spec/serveConfigV2"
_SHORTEST = 200


def check_serve_config(service: Document, schema: Document | None) -> list[Finding]:
    """`schema`: None where Serve is not installed; then keys and values go unchecked."""
    text = (service.get("spec") or {}).get("serveConfigV2")
    try:
        config = parse_yaml(str(text or ""))
    except yaml.YAMLError as error:
        return [_finding("serve-yaml", f"not valid YAML: {error}")]
    if not isinstance(config, dict) or not config.get("applications"):
        return [_finding("serve-yaml", "has no `applications`; allowed: a list of one or more")]
    applications = config["applications"]
    if not isinstance(applications, list) or not all(isinstance(a, dict) for a in applications):
        return [_finding("serve-yaml", "`applications` is no list of maps; allowed: that")]
    found = [*_proxies(config), *_twice(applications), *_imports(applications)]
    found += _secrets(applications)
    if schema is not None:
        found += [_finding("serve-unknown-key", each) for each in _unknown(config, schema, schema)]
        found += [_finding("serve-value", each) for each in _values(config, schema)]
    return found


def _finding(rule: str, message: str) -> Finding:
    return Finding(rule=rule, path=PATH, message=message, source="Ray 2.60, ray.serve.schema")


def _proxies(config: Document) -> Iterator[Finding]:
    if config.get("proxy_location") == "HeadOnly":
        yield _finding(
            "serve-proxies",
            "proxy_location HeadOnly leaves every worker NotReady; allowed: EveryNode",
        )


def _twice(applications: list[Document]) -> Iterator[Finding]:
    for key in ("name", "route_prefix"):
        given = [each[key] for each in applications if each.get(key) is not None]
        for value in sorted({str(each) for each in given if given.count(each) > 1}):
            yield _finding(
                "serve-duplicate",
                f"applications: {key} {value!r} appears {given.count(value)} times; allowed: once",
            )
    for app in applications:
        names = [str(each.get("name")) for each in app.get("deployments") or []]
        for name in sorted({each for each in names if names.count(each) > 1}):
            yield _finding(
                "serve-duplicate",
                f"applications.{app.get('name')}.deployments: name {name!r} appears "
                f"{names.count(name)} times; allowed: once",
            )


def _imports(applications: list[Document]) -> Iterator[Finding]:
    """A misspelt path of ours would leave its arguments unchecked, and Serve would not find it."""
    for index, app in enumerate(applications):
        path = str(app.get("import_path", ""))
        is_near = difflib.get_close_matches(path, [IMPORT_PATH])
        if path != IMPORT_PATH and (is_near or path.startswith(("actors.", "actors:"))):
            yield _finding(
                "serve-import-path",
                f"applications.{index}.import_path {path!r}; allowed: {IMPORT_PATH}, or one of a "
                "module of your own",
            )


def _secrets(applications: list[Document]) -> Iterator[Finding]:
    for index, app in enumerate(applications):
        for name in secret_variables(app.get("runtime_env")):
            yield _finding(
                "serve-secret",
                f"applications.{index}.runtime_env.env_vars.{name} looks like a secret, and {WHY}, "
                "runtime_env as well; allowed: the container's env with valueFrom.secretKeyRef",
            )


def _unknown(value: Any, schema: Any, root: Document, at: str = "") -> Iterator[str]:
    """Every key that no model of the schema has; what stands in a free map is nobody's."""
    branches = list(_branches(schema, root))
    if isinstance(value, list):
        items = [branch["items"] for branch in branches if isinstance(branch.get("items"), dict)]
        for index, each in enumerate(value):
            for item in items[:1]:
                yield from _unknown(each, item, root, f"{at}{index}.")
    models = [branch["properties"] for branch in branches if "properties" in branch]
    if not isinstance(value, dict) or not models:
        return
    known: dict[str, Any] = {name: sub for model in models for name, sub in model.items()}
    for key, each in value.items():
        if key in known:
            yield from _unknown(each, known[key], root, f"{at}{key}.")
            continue
        near = difflib.get_close_matches(str(key), known, n=1)
        meant = f", did you mean {near[0]!r}?" if near else ""
        yield (
            f"{at}{key}: unknown key, value {str(each)[:60]!r}{meant} Serve passes it over; "
            f"allowed: {', '.join(sorted(known))}"
        )


def _branches(schema: Any, root: Document) -> Iterator[Document]:
    """The schema itself and what it refers to or allows as well."""
    if not isinstance(schema, dict):
        return
    yield schema
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        yield from _branches(root["$defs"][reference.removeprefix("#/$defs/")], root)
    for kind in ("anyOf", "allOf", "oneOf"):
        for each in schema.get(kind) or []:
            yield from _branches(each, root)


def _values(config: Document, schema: Document) -> Iterator[str]:
    for error in Draft202012Validator(schema).iter_errors(config):
        if _is_of_a_key(error):
            continue  # told already
        at = ".".join(str(part) for part in error.absolute_path)
        yield f"{at or 'serveConfigV2'}: {_told(error)}"


def _is_of_a_key(error: ValidationError) -> bool:
    """A few models of Serve do forbid unknown keys, some of them beneath a choice."""
    beneath = [each for each in error.context or () if each.validator != "type"]
    return error.validator == "additionalProperties" or (
        bool(beneath) and all(_is_of_a_key(each) for each in beneath)
    )


def _told(error: ValidationError) -> str:
    value = str(error.instance)
    shown = value if len(value) <= _SHORTEST else f"{value[:_SHORTEST]}..."
    choices: Any = error.validator_value
    if error.validator == "anyOf":
        allowed = " or ".join(_allowed(each) for each in choices)
    else:
        allowed = f"{error.validator} {choices}"
    return f"value {shown}; allowed: {allowed}"


def _allowed(schema: Document) -> str:
    bounds = [
        f"{key} {schema[key]}"
        for key in ("minimum", "exclusiveMinimum", "maximum", "enum")
        if key in schema
    ]
    return " ".join([str(schema.get("type", "its own model")), *bounds])
