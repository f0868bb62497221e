"""What the text of a request must look like: a JSON schema, a regular expression, a choice or a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError

KINDS = ("json", "regex", "choice", "grammar", "json_object")


def _explain(name: str) -> str | None:
    if name == "structural_tag":
        return "structural_tag is not supported; describe the output by 'grammar' or 'json' instead."
    return None


@checks.reject_unknown_arguments(_explain)
@dataclass
class StructuredOutputsParams:
    """The form of an output; exactly one of the first five is given.

    A wrong value raises InvalidInputError, a wrong type InvalidTypeError. Whether a schema, expression or grammar can
    be used at all is known when its request is added.

    Attributes:
        json: A JSON schema: a dict, its JSON text, or a pydantic model class.
        regex: A regular expression that the whole output matches.
        choice: The outputs there are, none empty.
        grammar: A context-free grammar in Lark's or GBNF's notation.
        json_object: True for any JSON object.
        disable_any_whitespace: JSON without spaces or line breaks between its parts.
        disable_additional_properties: Objects have no properties but those that the schema names.
        whitespace_pattern: A regular expression for what may stand between the parts of JSON.
    """

    json: str | Mapping[str, Any] | type | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        self.validate()

    @property
    def kind(self) -> str:
        """Which of `json`, `regex`, `choice`, `grammar` and `json_object` is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def validate(self) -> None:
        """Checks every field; `choice` becomes a list and `json` the schema as a dict or a bool."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise InvalidInputError(
                f"structured outputs take exactly one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}."
            )
        for name in ("disable_any_whitespace", "disable_additional_properties"):
            setattr(self, name, checks.boolean(name, getattr(self, name)))
        for name in ("regex", "grammar", "whitespace_pattern"):
            if getattr(self, name) is not None and not checks.text(name, getattr(self, name)):
                raise InvalidInputError(f"{name} must not be empty; leave it out.")
        if self.whitespace_pattern is not None and given[0] not in ("json", "json_object"):
            raise InvalidInputError(f"whitespace_pattern is for JSON; leave it out together with {given[0]}.")
        if self.json is not None:
            self.json = _schema(self.json)
        if self.choice is not None:
            self.choice = checks.text_list("choice", self.choice)
            if not self.choice:
                raise InvalidInputError("choice must name at least one output.")
        if self.json_object is not None and not checks.boolean("json_object", self.json_object):
            raise InvalidInputError("json_object must be True; leave it out where any text will do.")


@dataclass
class GuidedDecodingParams(StructuredOutputsParams):
    """The older name of StructuredOutputsParams. `backend` and `disable_fallback` are taken and have no effect."""

    backend: str | None = None
    disable_fallback: bool = False


def as_structured_outputs(name: str, value: object) -> StructuredOutputsParams | None:
    """`value`, or the parameters that a dict holds; checked."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return StructuredOutputsParams(**{str(key): item for key, item in value.items()})
    if not isinstance(value, StructuredOutputsParams):
        raise InvalidTypeError(f"{name} must be StructuredOutputsParams or a dict of its fields, got {_shown(value)}.")
    value.validate()
    return value


def grammar_key(params: StructuredOutputsParams) -> str:
    """A text that is equal for parameters that allow the same outputs."""
    values = {field.name: getattr(params, field.name) for field in fields(StructuredOutputsParams)}
    return json.dumps(values, sort_keys=False)


def closed_schema(schema: Any) -> Any:
    """`schema` with additionalProperties false for every object that does not say otherwise."""
    if isinstance(schema, list):
        return [closed_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: closed_schema(value) for key, value in schema.items()}
    if closed.get("type") == "object" or isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def _schema(value: object) -> Any:
    """The schema as plain dicts and lists."""
    make = getattr(value, "model_json_schema", None)
    schema = make() if callable(make) else value
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        elif not isinstance(schema, (Mapping, bool)):
            raise InvalidTypeError(f"json must be a JSON schema as a dict or as JSON text, got {_shown(value)}.")
        plain = json.loads(json.dumps(schema, default=dict))
    except RecursionError:
        raise InvalidInputError("the JSON schema is nested too deeply; make it flatter.") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, (InvalidInputError, InvalidTypeError)):
            raise
        raise InvalidInputError(f"the JSON schema is not valid JSON ({error}); mend it.") from None
    if not isinstance(plain, (dict, bool)):
        raise InvalidTypeError(f"the JSON schema must be an object, got {_shown(plain)}.")
    return plain


_shown = checks.shown
