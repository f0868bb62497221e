"""FlexibleArgumentParser: spellings, files, JSON keys, numbers, switches and help."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from octavo.errors import InvalidInputError
from octavo.utils import FlexibleArgumentParser
from octavo.utils.argparse_utils import EnableDisableAction, human_readable_int


@pytest.fixture
def parser() -> FlexibleArgumentParser:
    parser = FlexibleArgumentParser(prog="prog")
    model = parser.add_argument_group("Model", "About the model.")
    model.add_argument("--model-name", default="tiny", help="Name of the model.")
    model.add_argument("--max-len", type=human_readable_int)
    model.add_argument("--extra", type=json.loads, default=None)
    parser.add_argument("--enable-cache", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--eager", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--stop", nargs="+")
    parser.add_argument("--under_score")
    parser.add_argument("-tp", "--tensor-parallel", type=int, default=1)
    return parser


def write(folder: Path, content: str, name: str = "config.yaml") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


@pytest.mark.parametrize("args", [["--model_name", "a_b"], ["--model-name=a_b"], ["--model_name=a_b"]])
def test_underscores_are_dashes_in_names_only(parser: FlexibleArgumentParser, args: list[str]) -> None:
    assert parser.parse_args(args).model_name == "a_b"


@pytest.mark.parametrize("name", ["--under_score", "--under-score"])
def test_options_declared_with_underscores(parser: FlexibleArgumentParser, name: str) -> None:
    assert parser.parse_args([name, "x"]).under_score == "x"


def test_abbreviations_with_underscores(parser: FlexibleArgumentParser) -> None:
    assert parser.parse_args(["--model_n", "x"]).model_name == "x"


def test_nothing_changes_after_two_dashes() -> None:
    parser = FlexibleArgumentParser()
    parser.add_argument("rest", nargs="*")
    assert parser.parse_args(["--", "--a_b", "--config"]).rest == ["--a_b", "--config"]


def test_unknown_option_is_an_error(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--colour", "red"])
    assert stop.value.code == 2
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-1", -1), ("1k", 1000), ("1K", 1024), ("25.6k", 25600), ("2m", 2 * 10**6), ("2M", 2 * 2**20)]
    + [("1g", 10**9), ("1G", 2**30), ("1t", 10**12), ("1T", 2**40), (" 4k ", 4000)],
)
def test_human_readable_int(text: str, number: int) -> None:
    assert human_readable_int(text) == number


@pytest.mark.parametrize("text", ["", "k", "x", "1.5", "1.5K", "1.0005k", "1kk", "inf", "nan", "nank"])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        human_readable_int(text)


def test_bad_number_explains_itself(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-len", "1.5K"])
    assert "binary suffix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ([], None),
        (["--enable-cache"], True),
        (["--disable-cache"], False),
        (["--disable_cache"], False),
        (["--no-enable-cache"], False),
        (["--no_enable_cache"], False),
    ],
)
def test_enable_and_disable(parser: FlexibleArgumentParser, args: list[str], value: bool | None) -> None:
    assert parser.parse_args(args).enable_cache is value


def test_plain_switch(parser: FlexibleArgumentParser) -> None:
    assert parser.parse_args(["--eager"]).eager is True
    assert parser.parse_args(["--eager", "--no-eager"]).eager is False


def test_switch_in_a_plain_parser() -> None:
    plain = argparse.ArgumentParser()
    plain.add_argument("--x", action=EnableDisableAction, default=False)
    assert plain.parse_args(["--x"]).x is True


def test_dotted_keys(parser: FlexibleArgumentParser) -> None:
    args = ["--extra.a.b", "4k", "--extra.a.c=true", "--extra.name", "x_y", "--eager", "--extra.list+", "1,b"]
    args += ["--extra.list+=2"]
    parsed = parser.parse_args(args)
    assert parsed.extra == {"a": {"b": 4000, "c": True}, "name": "x_y", "list": [1, "b", 2]}
    assert parsed.eager is True


def test_dotted_keys_join_whole_json(parser: FlexibleArgumentParser) -> None:
    args = ["--extra.a", "1", "--extra", '{"b": 2, "c": {"d": 3}}', "--extra.c.e", "4"]
    assert parser.parse_args(args).extra == {"a": 1, "b": 2, "c": {"d": 3, "e": 4}}


def test_dotted_keys_given_twice(parser: FlexibleArgumentParser, caplog: pytest.LogCaptureFixture) -> None:
    assert parser.parse_args(["--extra.a.b", "1", "--extra.a.b", "2"]).extra == {"a": {"b": 2}}
    assert "Found duplicate keys in --extra: a.b" in caplog.text


def test_dotted_key_without_a_value(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--extra.a", "--eager"])
    assert "--extra.a" in capsys.readouterr().err


def test_dots_in_values_are_no_keys(parser: FlexibleArgumentParser) -> None:
    parsed = parser.parse_args(["--model-name=./a.gguf", "--stop", "-1.5"])
    assert (parsed.model_name, parsed.stop) == ("./a.gguf", ["-1.5"])


def test_config_file(parser: FlexibleArgumentParser, tmp_path: Path) -> None:
    content = (
        "model_name: big\nmax-len: 4k\neager: true\nenable-cache: false\nunder_score: ~\n"
        "stop: [a, b]\nextra: {a: {b: 1}}\n"
    )
    parsed = parser.parse_args(["--config", write(tmp_path, content)])
    assert (parsed.model_name, parsed.max_len, parsed.eager, parsed.enable_cache) == ("big", 4000, True, False)
    assert (parsed.stop, parsed.extra, parsed.under_score) == (["a", "b"], {"a": {"b": 1}}, None)
    assert not hasattr(parsed, "config")


@pytest.mark.parametrize("before", [True, False])
def test_command_line_wins(parser: FlexibleArgumentParser, tmp_path: Path, before: bool) -> None:
    config = [f"--config={write(tmp_path, 'model-name: big', 'c.yml')}"]
    mine = ["--model-name", "mine"]
    assert parser.parse_args(mine + config if before else config + mine).model_name == "mine"


def test_config_leaves_positional_arguments_alone(tmp_path: Path) -> None:
    parser = FlexibleArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--stop", nargs="+")
    parsed = parser.parse_args(["x.gguf", "--config", write(tmp_path, "stop: [a, b]")])
    assert (parsed.file, parsed.stop) == ("x.gguf", ["a", "b"])


def test_config_with_an_unknown_key(
    parser: FlexibleArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", write(tmp_path, "colour: red")])
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("c.json", "{}", "yaml"), ("c.yaml", "a: [", "not valid YAML"), ("c.yaml", "- a", "must hold lines")],
)
def test_bad_config_files(
    parser: FlexibleArgumentParser, tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parser.parse_args(["--config", write(tmp_path, content, name)])


def test_config_mistakes(parser: FlexibleArgumentParser, tmp_path: Path) -> None:
    path = write(tmp_path, "eager: true")
    with pytest.raises(ValueError, match="more than once"):
        parser.parse_args(["--config", path, "--config", path])
    with pytest.raises(ValueError, match="needs the path"):
        parser.parse_args(["--config"])
    with pytest.raises(ValueError, match="cannot be read"):
        parser.parse_args(["--config", str(tmp_path / "none.yaml")])


def test_a_config_option_of_ones_own_stays() -> None:
    parser = FlexibleArgumentParser()
    parser.add_argument("--config")
    assert parser.parse_args(["--config", "x.json"]).config == "x.json"


def test_sub_commands_rewrite_for_themselves(tmp_path: Path) -> None:
    parser = FlexibleArgumentParser()
    command = parser.add_subparsers(dest="command").add_parser("run")
    command.add_argument("file")
    command.add_argument("--max-len", type=human_readable_int)
    command.add_argument("--extra", type=json.loads)
    args = ["run", "f", "--config", write(tmp_path, "max_len: 2k"), "--extra.a_b", "1"]
    parsed = parser.parse_args(args)
    assert (parsed.command, parsed.file, parsed.max_len, parsed.extra) == ("run", "f", 2000, {"a_b": 1})


def test_help_gives_every_default(parser: FlexibleArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    assert "Name of the model. (default: tiny)" in text
    assert "--max-len MAX_LEN (default: None)" in text
    assert "--enable-cache, --disable-cache (default: None)" in text
    assert "no-enable-cache" not in text
    assert text.index("--extra") < text.index("--max-len MAX_LEN (") < text.index("--model-name MODEL_NAME Name")


def narrow_help(parser: FlexibleArgumentParser, word: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([f"--help={word}", "--colour"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_on_a_group(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    text = narrow_help(parser, "model", capsys)
    assert "About the model." in text
    assert "--extra" in text
    assert "--eager" not in text


@pytest.mark.parametrize("word", ["max_len", "max-len", "LEN"])
def test_help_on_a_word(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str], word: str) -> None:
    text = narrow_help(parser, word, capsys)
    assert "--max-len" in text
    assert "--model-name" not in text


def test_help_on_groups_and_all(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    assert "  Model\n" in narrow_help(parser, "listgroup", capsys)
    assert narrow_help(parser, "all", capsys) == parser.format_help()


def test_help_on_nothing_there_is(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help=colour"])
    assert stop.value.code == 2
    assert "'colour'" in capsys.readouterr().err


def test_deprecated_options_warn(parser: FlexibleArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    parser.add_argument_group("Old").add_argument("--old-way", deprecated=True)
    assert parser.parse_args([]).old_way is None
    assert capsys.readouterr().err == ""
    assert parser.parse_args(["--old_way=x"]).old_way == "x"
    assert "option '--old-way' is deprecated" in capsys.readouterr().err
