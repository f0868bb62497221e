"""What may be passed as prompts and how mistakes are reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt, combine_errors, expand_params, parse_prompts


class Column:
    """Like a column of pandas: iterable, with a `tolist`."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values


def parsed(prompts: object) -> list[ParsedPrompt | None]:
    result, errors = parse_prompts(prompts)
    assert errors == {}
    return result


def texts(*values: str) -> list[ParsedPrompt]:
    return [ParsedPrompt(text=value) for value in values]


def only_error(prompts: object) -> OctavoError:
    result, errors = parse_prompts(prompts)
    assert result == [None]
    assert list(errors) == [0]
    return errors[0]


@pytest.mark.parametrize(
    "prompts",
    [
        ["a", "b"],
        ("a", "b"),
        (text for text in "ab"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        Column(["a", "b"]),
        [np.str_("a"), {"prompt": "b"}],
        {"a": 1, "b": 2}.keys(),
    ],
    ids=["list", "tuple", "generator", "array", "object-array", "column", "mixed", "view"],
)
def test_many_prompts(prompts: Iterable[Any]) -> None:
    result = parsed(prompts)
    assert result == texts("a", "b")
    assert {type(prompt.text) for prompt in result if prompt} == {str}


def test_no_prompts() -> None:
    assert parsed([]) == []
    assert parsed(np.array([])) == []


@pytest.mark.parametrize(
    "prompt",
    [
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        np.array([1, 2], dtype=np.uint16),
        [np.int64(1), 2],
        {"prompt_token_ids": [1, 2]},
    ],
)
def test_one_prompt_of_token_ids(prompt: object) -> None:
    (result,) = parsed(prompt)
    assert result == ParsedPrompt(token_ids=[1, 2])
    assert result.token_ids is not None
    assert {type(token) for token in result.token_ids} == {int}


def test_many_prompts_of_token_ids() -> None:
    wanted = [ParsedPrompt(token_ids=[1, 2]), ParsedPrompt(token_ids=[3, 4])]
    assert parsed([[1, 2], (3, 4)]) == wanted
    assert parsed(np.array([[1, 2], [3, 4]])) == wanted
    assert parsed([np.array([1, 2]), {"prompt_token_ids": np.array([3, 4])}]) == wanted


def test_one_text() -> None:
    assert parsed("abc") == texts("abc")
    assert parsed("") == texts("")
    assert parsed(np.array("abc")) == texts("abc")


def test_dicts() -> None:
    prompt = {"prompt": "a", "prompt_token_ids": [5], "cache_salt": "s", "id": 17, "multi_modal_data": None}
    assert parsed(prompt) == [ParsedPrompt("a", [5], "s")]


@pytest.mark.parametrize("bad", [None, float("nan"), 1.5, True, object()])
def test_what_is_no_prompt_is_named_by_its_index(bad: object) -> None:
    result, errors = parse_prompts(["a", bad, "b"])
    assert result == [ParsedPrompt("a"), None, ParsedPrompt("b")]
    assert list(errors) == [1]
    assert isinstance(errors[1], TypeError)
    assert "prompt 1 is " in str(errors[1])


def test_a_lone_thing_that_is_no_prompt() -> None:
    assert "prompt 0 is None" in str(only_error(None))
    assert "prompt 0 is 3" in str(only_error(3))
    assert "decode" in str(only_error(b"abc"))
    assert isinstance(only_error(b"abc"), TypeError)


def test_lone_surrogate() -> None:
    error = only_error("ab\ud800")
    assert isinstance(error, InvalidInputError)
    assert "prompt 0 has a lone surrogate at character 2" in str(error)


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ({"text": "a"}, TypeError, "without text or tokens"),
        ({"prompt": 3}, TypeError, "the text of prompt 0 must be text, got 3"),
        ({"prompt_token_ids": "12"}, TypeError, "expected a list of integers"),
        ({"prompt_token_ids": [1, "2"]}, TypeError, "'2' at position 1"),
        ({"prompt_token_ids": [1, True]}, TypeError, "True at position 1"),
        ({"prompt_token_ids": []}, ValueError, "no token ids"),
        ({"prompt_token_ids": [1, -2]}, ValueError, "token id -2"),
        ({"prompt": "a", "cache_salt": ""}, ValueError, "cache_salt"),
        ({"prompt": "a", "cache_salt": 4}, TypeError, "cache_salt"),
        ({"prompt_embeds": [0.5]}, TypeError, "embeddings"),
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, TypeError, "text models only"),
        ({"encoder_prompt": "a", "decoder_prompt": "b"}, TypeError, "decoder-only"),
    ],
)
def test_bad_dicts(prompt: object, kind: type[Exception], message: str) -> None:
    error = only_error(prompt)
    assert isinstance(error, kind)
    assert message in str(error)


def test_bad_token_lists_do_not_hide_good_ones() -> None:
    result, errors = parse_prompts([[1], [], [1.5], [2]])
    assert [prompt and prompt.token_ids for prompt in result] == [[1], None, None, [2]]
    assert sorted(errors) == [1, 2]


def test_a_table_is_no_list_of_prompts() -> None:
    class Table:
        columns = ("prompt",)

    with pytest.raises(InvalidTypeError, match="pass one column"):
        parse_prompts(Table())


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_in_order(values: list[str]) -> None:
    assert parsed(iter(values)) == texts(*values)


def test_expand_one_value_is_shared() -> None:
    value = object()
    assert expand_params(value, 3, "params") == [value] * 3
    assert expand_params(None, 2, "params") == [None, None]


def test_expand_many_values() -> None:
    assert expand_params([1, 2], 2, "priority") == [1, 2]
    assert expand_params(np.array([1, 2]), 2, "priority") == [1, 2]
    assert expand_params([], 0, "params") == []


@pytest.mark.parametrize(("values", "n"), [([1, 2], 3), ([], 1), ([1], 0)])
def test_expand_refuses_another_length(values: list[int], n: int) -> None:
    message = rf"^The lengths of prompts \({n}\) and priority \({len(values)}\) must be the same\.$"
    with pytest.raises(InvalidInputError, match=message):
        expand_params(values, n, "priority")


def test_one_error_is_itself() -> None:
    error = InvalidInputError("prompt 4 is bad.")
    assert combine_errors({4: error}) is error


def test_combined_errors_name_every_index() -> None:
    _, errors = parse_prompts([None, "a", None, None, None, "\ud800"])
    error = combine_errors(errors)
    assert isinstance(error, InvalidInputError)
    assert str(error).startswith("prompts 0, 2-5 cannot be used: prompt 0 is None; ")
    assert str(error).endswith("and 2 more.")


def test_combined_type_errors_are_a_type_error() -> None:
    _, errors = parse_prompts([None, 2.5])
    assert isinstance(combine_errors(errors), InvalidTypeError)
