"""The text of MLflow's answers, written at once.

MLflow makes each message into a dictionary, a second one with the whole numbers, merges the two, and has Python (not C: the text is indented) write it. For a
search's hundred runs that takes longer than the search. Here the same text is written from the message itself; messages with a field whose text is not plainly
known (maps, bytes, 32-bit floats, Google's own types) are left to MLflow.
"""

# Protobuf has no types without a package of stubs of its own.
# mypy: disable-error-code="import-untyped"

from collections.abc import Callable
from functools import cache, partial
from json.encoder import encode_basestring_ascii
from math import isfinite, isnan
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from mlflow.utils.proto_json_utils import message_to_json

# A part of a text, for a value and the line break before whatever is inside of it.
Write = Callable[[Any, str], str]

_WHOLE = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


class UnknownFieldError(Exception):
    """A field whose text only MLflow knows."""


def install(handlers: ModuleType) -> None:
    """Put our own in place of the function that MLflow's handlers (`mlflow.server.handlers`) write their answers with."""
    # One constant name, but not one that MLflow lets others assign to.
    vars(handlers)["message_to_json"] = text


def text(message: Message, *, pretty: bool = True, convert_int64_to_number: bool = True) -> str:
    """Return a message as MLflow's `message_to_json` writes it, to the byte."""
    if pretty and convert_int64_to_number:
        write = writer(message.DESCRIPTOR)
        if write is not None:
            return write(message, "\n")
    written: str = message_to_json(message, pretty=pretty, convert_int64_to_number=convert_int64_to_number)
    return written


def double(value: float, _break: str = "") -> str:
    """Return the text of a floating point number."""
    if isfinite(value):
        return repr(value)
    return '"NaN"' if isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


@cache
def writer(descriptor: Descriptor) -> Write | None:
    """Return what writes messages of a kind; None where MLflow has to."""
    try:
        return _of_message(descriptor, ())
    except UnknownFieldError:
        return None


def _of_message(descriptor: Descriptor, within: tuple[Descriptor, ...]) -> Write:
    if descriptor.file.package.startswith("google.protobuf") or descriptor.GetOptions().map_entry or descriptor in within or descriptor.is_extendable:
        raise UnknownFieldError(descriptor.full_name)
    fields = {field.number: (f"{encode_basestring_ascii(field.name)}: ", _of_field(field, (*within, descriptor))) for field in descriptor.fields}
    return partial(_message, fields)


def _of_field(field: FieldDescriptor, within: tuple[Descriptor, ...]) -> Write:
    if field.message_type is not None:
        one = _of_message(field.message_type, within)
    elif field.enum_type is not None:
        one = _of_enum(field.enum_type)
    elif field.cpp_type in _WHOLE:
        one = _whole
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        one = double
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        one = _bool
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = _string
    else:
        raise UnknownFieldError(field.full_name)
    return partial(_list, one) if field.is_repeated else one


def _of_enum(enum: EnumDescriptor) -> Write:
    # An option may give a value another name in JSON.
    if not enum.is_closed or any(value.has_options for value in enum.values):
        raise UnknownFieldError(enum.full_name)
    names = {number: encode_basestring_ascii(value.name) for number, value in enum.values_by_number.items()}
    return lambda value, _break: names[value]


def _message(fields: dict[int, tuple[str, Write]], message: Message, line: str) -> str:
    inner = line + "  "
    parts = []
    for field, value in message.ListFields():
        name, write = fields[field.number]
        parts.append(name + write(value, inner))
    return "{" + inner + ("," + inner).join(parts) + line + "}" if parts else "{}"


def _list(one: Write, values: Any, line: str) -> str:  # noqa: ANN401 - any field's
    inner = line + "  "
    return "[" + inner + ("," + inner).join([one(value, inner) for value in values]) + line + "]"


def _string(value: str, _break: str) -> str:
    return encode_basestring_ascii(value)


def _whole(value: int, _break: str) -> str:
    return repr(value)


def _bool(value: bool, _break: str) -> str:  # noqa: FBT001 - a field's value
    return "true" if value else "false"
