"""The text of an answer is MLflow's to the byte, whoever writes it."""

# Protobuf has no types without a package of stubs of its own.
# mypy: disable-error-code="import-untyped"

import json
import math
from types import ModuleType

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from longrun_server.answers import install, text, writer
from mlflow.protos import model_registry_pb2, service_pb2
from mlflow.utils.proto_json_utils import message_to_json

# One for each way in which a text is escaped or a number written.
STRINGS = ["", "plain", '"quoted" \\ /', "line\nbreak\ttab\x00\x1f\x7f", "\u00fc\u2028\u20ac", "\U0001f600", "</script>"]
DOUBLES = [0.0, -0.0, 1.0, 0.1, 1e-300, 1e300, 123456789012345680.0, 1e16, 5e-324, math.pi, math.inf, -math.inf, math.nan]
WHOLES = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
HOT = (
    service_pb2.CreateRun.Response,
    service_pb2.GetRun.Response,
    service_pb2.SearchRuns.Response,
    service_pb2.LogMetric.Response,
    service_pb2.LogBatch.Response,
    service_pb2.GetMetricHistory.Response,
    service_pb2.GetExperiment.Response,
    service_pb2.SearchExperiments.Response,
)


def fill(message: Message, turn: int, depth: int = 0) -> None:
    """Put something into every field of a message; another turn puts something else there."""
    for place, field in enumerate(message.DESCRIPTOR.fields):
        number = turn + place
        if number % 5 == 4:
            continue
        if field.message_type is not None:
            if depth < 4:
                below = getattr(message, field.name)
                for each in [below.add() for _ in range(number % 3)] if field.is_repeated else [below]:
                    each.SetInParent()
                    fill(each, number, depth + 1)
            continue
        value = value_of(field, number)
        if field.is_repeated:
            getattr(message, field.name).extend([value] * (number % 3))
        else:
            setattr(message, field.name, value)


def value_of(field: FieldDescriptor, number: int) -> object:
    """Return a value for a field that is no message."""
    if field.enum_type is not None:
        return field.enum_type.values[number % len(field.enum_type.values)].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return STRINGS[number % len(STRINGS)]
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return DOUBLES[number % len(DOUBLES)]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return number % 2 == 0
    value = WHOLES[number % len(WHOLES)]
    return value if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else abs(value) % 2**31


@pytest.mark.parametrize("kind", HOT, ids=lambda kind: str(kind.DESCRIPTOR.full_name))
def test_the_bytes_are_mlflows(kind: type[Message]) -> None:
    """Of the empty message and of full ones; and they are written here, not by MLflow."""
    assert writer(kind.DESCRIPTOR) is not None
    assert text(kind()) == message_to_json(kind()) == "{}"
    for turn in range(40):
        message = kind()
        fill(message, turn)
        assert text(message) == message_to_json(message)
        json.loads(text(message))


def test_every_answer_is_mlflows() -> None:
    """Of each message that MLflow's services have, whoever writes it."""
    kinds = [
        getattr(outer, "Response", None)
        for module in (service_pb2, model_registry_pb2)
        for outer in vars(module).values()
        if isinstance(outer, type) and issubclass(outer, Message)
    ]
    messages = [kind() for kind in kinds if kind is not None]
    written = 0
    for message in messages:
        if writer(message.DESCRIPTOR) is None:
            continue
        written += 1
        fill(message, written)
        assert text(message) == message_to_json(message), message.DESCRIPTOR.full_name
    assert written > 30


def test_what_is_not_plain_is_left_to_mlflow() -> None:
    """A map, a text without line breaks, whole numbers in quotes."""
    message = service_pb2.GetRun.Response()
    message.run.info.start_time = 5
    assert text(message, pretty=False) == message_to_json(message, pretty=False)
    assert text(message, convert_int64_to_number=False) == message_to_json(message, convert_int64_to_number=False)
    trace = service_pb2.TraceInfoV3()
    trace.tags["b"] = "c"
    assert writer(trace.DESCRIPTOR) is None
    assert text(trace) == message_to_json(trace)


def test_it_takes_the_place_of_mlflows() -> None:
    """In the module of the handlers."""
    handlers = ModuleType("handlers")
    vars(handlers)["message_to_json"] = message_to_json
    install(handlers)
    assert vars(handlers)["message_to_json"] is text
