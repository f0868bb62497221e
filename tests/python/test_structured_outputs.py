"""Structured outputs: what a finished output looks like, and what cannot be asked for."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_files
import tiny_text
from octavo import LLM, CompletionOutput, RequestOutput, SamplingParams
from octavo.sampling_params import GuidedDecodingParams, RequestOutputKind, StructuredOutputsParams

PROMPT = "Here is the answer:"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.make_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return tiny_text.load(folder)


def complete(llm: LLM, form: Any, **params: Any) -> RequestOutput:
    params = {"max_tokens": 100, "seed": 1, **params}
    return llm.generate(PROMPT, SamplingParams(structured_outputs=form, **params), use_tqdm=False)[0]


def sample(llm: LLM, form: Any, **params: Any) -> CompletionOutput:
    return complete(llm, form, **params).outputs[0]


# ---- what is finished fits ----

words = st.text("abcxyz019 _-éß漢😀", min_size=1, max_size=5)
literals = words.map(re.escape)
classes = st.sampled_from([r"\d", "[a-f]", "[^a-z]", r"\w", "[é漢]", "."])
regexes = st.recursive(
    st.one_of(literals, classes),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(lambda t: f"(?:{t[0]}){{{t[1]},{t[1] + t[2]}}}"),
        inner.map(lambda part: f"(?:{part})?"),
    ),
    max_leaves=6,
).filter(lambda regex: re.fullmatch(regex, "") is None)  # an output that is over at once says little

names = st.sampled_from(["a", "b", "name", "größe", 'with "quotes"', "x y"])
values = st.one_of(st.integers(-20, 20), st.booleans(), st.none(), words)
scalars = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.integers(0, 6).map(lambda n: {"type": "string", "maxLength": n}),
    st.tuples(st.integers(-9, 99), st.integers(0, 999)).map(
        lambda t: {"type": "integer", "minimum": t[0], "maximum": t[0] + t[1]}
    ),
    st.just({"type": "string", "pattern": "^[a-c]{1,4}$"}),
    values.map(lambda value: {"const": value}),
    st.lists(values, min_size=1, max_size=4).map(lambda items: {"enum": items}),
)


def arrays(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(items, st.integers(0, 2), st.integers(0, 2)).map(
        lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + t[2]}
    )


def objects(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.dictionaries(names, items, max_size=3), st.booleans()).map(
        lambda t: {
            "type": "object",
            "properties": t[0],
            "required": sorted(t[0])[: 1 + t[1]],
            "additionalProperties": False,
        }
    )


schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        arrays(inner), objects(inner), st.lists(inner, min_size=2, max_size=3).map(lambda items: {"anyOf": items})
    ),
    max_leaves=5,
)

N_TOGETHER = 20
_settings = settings(
    max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def run_forms(llm: LLM, forms: list[StructuredOutputsParams]) -> list[list[str]]:
    """The texts of the samples of each form that came to their end; most do."""
    params = [SamplingParams(n=2, max_tokens=120, seed=i, structured_outputs=form) for i, form in enumerate(forms)]
    outputs = llm.generate([PROMPT] * len(forms), params, use_tqdm=False)
    finished = [[c.text for c in output.outputs if c.finish_reason == "stop"] for output in outputs]
    assert sum(map(len, finished)) >= 1.8 * len(forms)
    return finished


@_settings
@given(st.lists(regexes, min_size=N_TOGETHER, max_size=N_TOGETHER))
def test_finished_outputs_match_their_expression(llm: LLM, forms: list[str]) -> None:
    for regex, texts in zip(forms, run_forms(llm, [StructuredOutputsParams(regex=r) for r in forms]), strict=True):
        for text in texts:
            assert re.fullmatch(regex, text), (regex, text)


@_settings
@given(st.lists(schemas, min_size=N_TOGETHER, max_size=N_TOGETHER), st.booleans())
def test_finished_outputs_validate_against_their_schema(llm: LLM, forms: list[Any], compact: bool) -> None:
    spaces: dict[str, Any] = {"disable_any_whitespace": True} if compact else {"whitespace_pattern": "[ \n]{0,2}"}
    params = [StructuredOutputsParams(json=schema, **spaces) for schema in forms]
    for schema, texts in zip(forms, run_forms(llm, params), strict=True):
        for text in texts:
            value = json.loads(text)
            jsonschema.validate(value, schema)
            if compact:
                assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=False) or "\\" in text


# ---- the kinds ----


def test_choice(llm: LLM) -> None:
    choices = ["positive", "negative", 'a "quoted" é', "two\nlines"]
    texts = {sample(llm, {"choice": choices}, temperature=2.0, seed=seed).text for seed in range(12)}
    assert texts <= set(choices) and len(texts) > 1


@pytest.mark.parametrize(
    "grammar", ['root ::= "<" word ">"\nword ::= [a-c]{2}', 'start: "<" WORD ">"\nWORD: /[a-c]{2}/']
)
def test_grammars_in_both_notations(llm: LLM, grammar: str) -> None:
    assert re.fullmatch("<[a-c]{2}>", sample(llm, {"grammar": grammar}).text)


def test_json_object(llm: LLM) -> None:
    forms = [StructuredOutputsParams(json_object=True, disable_any_whitespace=True)] * 8
    params = [SamplingParams(max_tokens=300, seed=i, structured_outputs=form) for i, form in enumerate(forms)]
    outputs = [output.outputs[0] for output in llm.generate([PROMPT] * 8, params, use_tqdm=False)]
    assert all(output.text.startswith("{") for output in outputs)
    finished = [json.loads(output.text) for output in outputs if output.finish_reason == "stop"]
    assert all(isinstance(value, dict) for value in finished)


def test_schemas_as_text_and_as_pydantic_models(llm: LLM) -> None:
    class Person:
        @staticmethod
        def model_json_schema() -> dict[str, Any]:
            return PERSON

    same = {"disable_any_whitespace": True}
    texts = {sample(llm, {"json": schema, **same}).text for schema in (PERSON, json.dumps(PERSON), Person)}
    assert len(texts) == 1
    jsonschema.validate(json.loads(texts.pop()), PERSON)


def test_additional_properties(llm: LLM) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "object", "properties": {}}}}
    for seed in range(5):
        form = StructuredOutputsParams(json=schema, disable_additional_properties=True, disable_any_whitespace=True)
        value = json.loads(sample(llm, form, seed=seed).text)
        assert value.keys() <= {"a", "b"} and not value.get("b")


def test_the_older_spelling(llm: LLM) -> None:
    new = SamplingParams(max_tokens=50, seed=4, structured_outputs=StructuredOutputsParams(regex="[ab]{5,9}"))
    old = SamplingParams(max_tokens=50, seed=4, guided_decoding=GuidedDecodingParams(regex="[ab]{5,9}", backend="auto"))
    texts = [output.outputs[0].text for output in llm.generate([PROMPT] * 2, [new, old], use_tqdm=False)]
    assert texts[0] == texts[1] and re.fullmatch("[ab]{5,9}", texts[0])


# ---- with the rest of the engine ----


def test_only_the_end_may_follow_a_finished_grammar(llm: LLM) -> None:
    ends = llm._model.eos_token_ids
    output = sample(llm, {"regex": "abc"}, ignore_eos=True, max_tokens=12)
    assert output.text == "abc" and output.finish_reason == "length"
    after = next(i for i, token in enumerate(output.token_ids) if token in ends)
    assert set(output.token_ids[after:]) <= set(ends)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_finished_grammar_wins_over_min_tokens(llm: LLM, temperature: float) -> None:
    for form, text in (({"regex": "abc"}, "abc"), ({"choice": ["yes"]}, "yes"), ({"json": {"const": 17}}, "17")):
        output = sample(llm, form, min_tokens=50, temperature=temperature)
        assert (output.text, output.finish_reason, output.stop_reason) == (text, "stop", None)
    longer = sample(llm, {"regex": "[a-c]{1,99}"}, min_tokens=30, temperature=temperature)
    assert len(longer.token_ids) >= 30 and re.fullmatch("[a-c]{30,99}", longer.text)


def test_max_tokens_may_cut(llm: LLM) -> None:
    output = sample(llm, {"regex": "x{50}"}, max_tokens=2)
    assert output.finish_reason == "length" and re.fullmatch("x+", output.text)


def test_samples_go_their_own_ways(llm: LLM) -> None:
    output = complete(llm, {"regex": "[a-z]{6,12}"}, n=6)
    texts = [completion.text for completion in output.outputs]
    assert len(set(texts)) == 6 and all(re.fullmatch("[a-z]{6,12}", text) for text in texts)


def test_stop_strings(llm: LLM) -> None:
    whole = sample(llm, {"regex": "[a-z]{20}"}).text
    output = sample(llm, {"regex": "[a-z]{20}"}, stop=[whole[4:7]])
    assert output.text == whole[: whole.index(whole[4:7])] and output.stop_reason == whole[4:7]


def test_streams(llm: LLM) -> None:
    params = SamplingParams(
        max_tokens=50, seed=1, structured_outputs={"regex": "[a-z]{20}"}, output_kind=RequestOutputKind.DELTA
    )
    text = "".join(output.outputs[0].text for output in llm.stream(PROMPT, params))
    assert text == sample(llm, {"regex": "[a-z]{20}"}).text


def test_same_tokens_in_a_batch_and_after_preemption(llm: LLM, folder: Path) -> None:
    forms = [
        {"json": PERSON, "disable_any_whitespace": True},
        {"regex": "([0-9] ){99}"},
        {"choice": ["yes", "no"]},
    ] * 2
    params = [SamplingParams(max_tokens=90, seed=i, structured_outputs=form) for i, form in enumerate(forms)]
    params.append(SamplingParams(max_tokens=90, seed=9, ignore_eos=True))
    alone = [llm.generate(PROMPT, each, use_tqdm=False)[0].outputs[0].token_ids for each in params]
    tight = tiny_text.load(folder, kv_cache_memory_bytes=6 * 2 * 2 * 32 * 32 * 2 + 4096, max_model_len=128)
    for engine in (llm, tight):
        together = engine.generate([PROMPT] * len(params), params, use_tqdm=False)
        assert [output.outputs[0].token_ids for output in together] == alone
    assert tight._model.core.stats().n_preemptions > 0


def test_a_step_that_is_repeated_gets_the_same_mask(llm: LLM) -> None:
    hook = llm._runner._hook
    [request] = llm._requests(PROMPT, SamplingParams(structured_outputs={"regex": "ab*c"}), None, "raise")
    hook.add(-1, request)
    tokens = np.array(llm.get_tokenizer().encode("abb", add_special_tokens=False), np.int32)
    masks = np.zeros((3, (llm._model.vocab_size + 31) // 32), np.uint32)
    for row, n in zip(masks, (0, len(tokens), len(tokens)), strict=True):
        hook.fill_masks([-1], [tokens[:n]], row[None])
    hook.forget([-1])
    assert masks[0].any() and masks[1].any()
    assert (masks[0] != masks[1]).any() and (masks[1] == masks[2]).all()


def test_logprobs_are_those_before_the_mask(llm: LLM) -> None:
    plain = complete(llm, None, max_tokens=1, logprobs=5, temperature=0).outputs[0]
    held = complete(llm, {"choice": ["yes"]}, max_tokens=1, logprobs=5, temperature=0).outputs[0]
    assert plain.logprobs is not None and held.logprobs is not None
    for token, entry in plain.logprobs[0].items():
        assert held.logprobs[0][token].logprob == entry.logprob
    assert (held.logprobs[0][held.token_ids[0]].rank or 0) > 5


def test_masks_and_logits_processors_together(llm: LLM) -> None:
    b = llm.get_tokenizer().encode("b", add_special_tokens=False)[0]

    def no_b(output: list[int], logits: np.ndarray) -> None:
        logits[b] = -np.inf

    for seed in range(4):
        assert sample(llm, {"regex": "[abc]"}, logits_processors=[no_b], seed=seed).text in ("a", "c")


def test_a_grammar_that_leaves_nothing_to_say_ends_its_own_request_only(llm: LLM) -> None:
    bad = SamplingParams(structured_outputs={"regex": "abc"}, allowed_token_ids=[5])
    good = SamplingParams(structured_outputs={"regex": "abc"})
    outputs = llm.generate([PROMPT] * 2, [bad, good], use_tqdm=False, on_error="return")
    assert "No token can be sampled" in str(outputs[0].error)
    assert outputs[1].outputs[0].text == "abc"


def test_a_tokenizer_that_strips_the_first_space(tmp_path: Path, golden: Path) -> None:
    vocabulary = lzma.decompress((golden / "vocab" / "llama-spm.gguf.xz").read_bytes())
    tokenizer = gguf_files.write(tmp_path / "llama-spm.gguf", vocabulary)
    llm = tiny_text.load(tiny_text.make_folder(tmp_path / "model", 32000), tokenizer=str(tokenizer))
    assert llm.get_tokenizer().strips_leading_space
    forms = {
        "yes|no": {"regex": "yes|no"},
        " {1,2}[a-z]{3}": {"regex": " {1,2}[a-z]{3}"},
        "[é漢😀]{4}": {"regex": "[é漢😀]{4}"},
        "Paris|São Paulo": {"choice": ["Paris", "São Paulo"]},
        "<[a-c]{2}>": {"grammar": 'root ::= "<" [a-c]{2} ">"'},
        r'\{"a":(true|false)\}': {
            "json": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
            "disable_any_whitespace": True,
            "disable_additional_properties": True,
        },
    }
    params = [SamplingParams(n=4, seed=1, max_tokens=30, structured_outputs=form) for form in forms.values()]
    for regex, output in zip(forms, llm.generate([PROMPT] * len(forms), params, use_tqdm=False), strict=True):
        for completion in output.outputs:
            assert re.fullmatch(regex, completion.text) and completion.finish_reason == "stop", (regex, completion)
    with pytest.raises(ValueError, match="the grammar cannot be used"):
        sample(llm, {"grammar": "{"})


# ---- what cannot be asked for ----


@pytest.mark.parametrize(
    "form, words",
    [
        ({"regex": "(a"}, "regular expression cannot be used: unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": ""}, "regex must not be empty"),
        ({"json": {"type": "objct"}}, "JSON schema cannot be used: Invalid type: objct"),
        ({"json": "{bad"}, "not valid JSON"),
        ({"json": 3}, "json must be a JSON schema"),
        ({"json": {"type": "string", "pattern": "("}}, "unclosed group"),
        ({"grammar": "root ::= ("}, "grammar cannot be used"),
        ({"grammar": "start: foo"}, "unknown name"),
        ({"json_object": True, "whitespace_pattern": "["}, "whitespace_pattern cannot be used"),
        ({"regex": "a", "whitespace_pattern": " "}, "whitespace_pattern is for JSON"),
        ({"choice": []}, "at least one"),
        ({"choice": [""]}, "empty string"),
        ({"json_object": False}, "must be True"),
        ({}, "exactly one of json, regex, choice, grammar, json_object, got none"),
        ({"regex": "a", "choice": ["a"]}, "got regex and choice"),
        ({"structural_tag": "x"}, "structural_tag is not supported"),
        ({"regexp": "a"}, "did you mean 'regex'"),
        ("a", "must be StructuredOutputsParams or a dict"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(llm: LLM, form: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        complete(llm, form)
    assert re.fullmatch(r"[^\n]+[.?]", str(caught.value))
    assert llm._model.core.stats().n_running == 0


def test_a_bad_schema_is_found_before_any_work(llm: LLM) -> None:
    params = [SamplingParams(), SamplingParams(structured_outputs={"regex": "(a"}), SamplingParams()]
    before = llm._model.core.stats().n_steps
    with pytest.raises(ValueError, match="prompt 1"):
        llm.generate([PROMPT] * 3, params, use_tqdm=False)
    assert llm._model.core.stats().n_steps == before
    outputs = llm.generate([PROMPT] * 3, params, use_tqdm=False, on_error="return")
    assert [output.error is None for output in outputs] == [True, False, True]


def test_both_spellings_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="set only structured_outputs"):
        SamplingParams(structured_outputs={"regex": "a"}, guided_decoding={"regex": "a"})


def test_without_a_tokenizer(folder: Path) -> None:
    llm = tiny_text.load(folder, tokenizer=None, skip_tokenizer_init=True)
    with pytest.raises(ValueError, match="structured outputs need a tokenizer"):
        llm.generate([[1, 2]], SamplingParams(structured_outputs={"regex": "a"}), use_tqdm=False)


def test_the_package_is_imported_at_the_call_that_needs_it(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, octavo, octavo.llm; from octavo.sampling_params import SamplingParams\n"
        "SamplingParams(structured_outputs={'regex': 'a'}); print('llguidance' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ValueError, match=r"need the package llguidance; install it with: pip install"):
        complete(llm, {"regex": "never seen before"})
