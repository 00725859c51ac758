"""Triton's `ModelConfig`: from text (`config.pbtxt`) and from JSON, on the private pool.

Messages have type Any: their classes are made at run time.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format, text_format

from cluster.errors import ConfigError, InvalidRequest
from cluster.protocols.grpc_schema import POOL, message_class
from cluster.tensors import DATATYPES, Datatype

_NAME = "inference.ModelConfig"
_TYPES = POOL.FindEnumTypeByName("inference.DataType").values_by_number


def parse_text(text: str, *, source: str) -> Any:
    """Raises: ConfigError naming the file, the line and what is wrong there."""
    try:
        return text_format.Parse(text, message_class(_NAME)(), descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise ConfigError(f"{source}: not a model configuration: {error}", file=source) from None


def parse_json(text: str) -> Any:
    """The JSON form; numbers may stand in quotes. Raises: InvalidRequest."""
    if not text.lstrip().startswith("{"):
        raise InvalidRequest("not a model configuration: a JSON object is expected")
    try:
        return json_format.Parse(text, message_class(_NAME)(), descriptor_pool=POOL)
    except json_format.ParseError as error:
        raise InvalidRequest(f"not a model configuration: {str(error)[:300]}") from None


def says_max_batch_size(text: str) -> bool:
    """Whether a text configuration names `max_batch_size`: a 0 that is written is meant."""
    return re.search(r"^\s*max_batch_size\s*:", text, re.MULTILINE) is not None


def datatype_named(data_type: int) -> Datatype | None:
    """The V2 datatype of a `DataType` value; None for TYPE_INVALID."""
    name = _TYPES[data_type].name.removeprefix("TYPE_") if data_type in _TYPES else ""
    if name == "STRING":
        return "BYTES"
    return next((datatype for datatype in DATATYPES if datatype == name), None)


def enum_name(message: Any, field: str) -> str:
    """The name of a message's enum value, e.g. KIND_CPU."""
    value = getattr(message, field)
    known = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return known[value].name if value in known else str(value)
