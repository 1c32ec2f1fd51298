"""Problems: the real loaders on small files in the schemas of the hub and of Kaggle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from eapo_env.problems import SOURCES, ColumnNames, Columns, MissingColumnError, load_problems
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

DAPO_PREFIX = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_SUFFIX = '\n\nRemember to put your answer on its own line after "Answer:".'


@pytest.fixture(autouse=True)
def _cache_outside_the_home(tmp_path: Path) -> Iterator[None]:
    kept = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    yield
    datasets.config.HF_DATASETS_CACHE = kept


def dapo_row(statement: str, answer: str, index: str) -> dict[str, object]:
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": DAPO_PREFIX + statement + DAPO_SUFFIX}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    return path


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_dapo_is_unwrapped_and_each_statement_kept_once(tmp_path: Path) -> None:
    rows = [
        dapo_row("What is $1+1$?", "2", "uuid-a"),
        dapo_row("What is $2+2$?", "4", "uuid-b"),
        dapo_row("What is $3+3$?", "6", "uuid-c"),
    ]
    again = dapo_row("What is $1+1$?", "2", "uuid-d")
    against = dapo_row("What is $3+3$?", "7", "uuid-e")
    write_parquet(
        tmp_path / "DAPO" / "data" / "dapo-math-17k.parquet", [*rows * 100, again, against]
    )
    assert load_problems("dapo-math-17k", path=tmp_path / "DAPO") == (
        Problem(id="uuid-a", statement="What is $1+1$?", answer="2", source="dapo-math-17k"),
        Problem(id="uuid-b", statement="What is $2+2$?", answer="4", source="dapo-math-17k"),
    )


def test_a_dapo_statement_may_end_in_the_words_of_its_wrapping(tmp_path: Path) -> None:
    statement = 'Write $x$ as Answer: $Answer. Solve it step by step, after "Answer:".'
    path = write_parquet(tmp_path / "d.parquet", [dapo_row(statement, "5", "u")])
    assert load_problems("dapo-math-17k", path=path)[0].statement == statement


def test_aime_2024_answers_are_taken_out_of_their_boxes(tmp_path: Path) -> None:
    rows = [
        {"id": 60, "problem": "One?", "solution": r"\boxed{204}", "url": "https://a/1"},
        {"id": 61, "problem": "Two?", "solution": r"So $x = 25$, hence $\boxed{025}$.", "url": ""},
    ]
    write_parquet(tmp_path / "aime24" / "data" / "test-00000-of-00001.parquet", rows)
    problems = load_problems("aime-2024", path=tmp_path / "aime24")
    assert [(p.id, p.statement, p.answer) for p in problems] == [
        ("60", "One?", "204"),
        ("61", "Two?", "025"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"id": 60, "problem": "One?", "solution": "\\boxed{204}", "url": ""},
        {"id": 60, "problem": "One?", "solution": "Long prose. It ends in 3.", "answer": 204},
        {"ID": "60", "Problem": "One?", "Solution": "Prose. More.", "Answer": 204},
    ],
    ids=["math-ai", "HuggingFaceH4", "Maxwell-Jia"],
)
def test_aime_2024_has_three_layouts_on_the_hub(tmp_path: Path, row: dict[str, object]) -> None:
    [problem] = load_problems("aime-2024", path=write_jsonl(tmp_path / "aime.jsonl", [row]))
    assert (problem.id, problem.statement, problem.answer) == ("60", "One?", "204")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("So we get $x=1$. Thus the area is $\\boxed{\\frac12}$.", "\\frac12"),
        ("She bakes 3*12=<<3*12=36>>36 buns.\nThen 36+36=72.\n#### 72", "72"),
        ("\\boxed{(1,2)}", "(1,2)"),
        ("The roots are $\\boxed{2}$ and $\\boxed{3}$.", "2, 3"),
        ("\\frac{(n-1)!}{2}", "\\frac{(n-1)!}{2}"),
        ("\\text{the sequence is convergent}", "\\text{the sequence is convergent}"),
        ("f(x) = x^2 \\text{ for all real } x", "f(x) = x^2 \\text{ for all real } x"),
    ],
)
def test_the_gold_answer_of_a_solution_is_its_final_answer(
    tmp_path: Path, text: str, gold: str
) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{"problem": "?", "solution": text}])
    assert load_problems(path, columns={"answer": "solution"})[0].answer == gold


PROSE = "We add the two numbers. That gives seven. So the sum is seven."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROSE, f"a solution in prose, of which no box and no #### names the answer: '{PROSE}'"),
        ("We have \\boxed{7. And so on.", "the solution gives no final answer"),
        ("nan", "'nan' stands for a missing answer"),
        ("NULL", "'NULL' stands for a missing answer"),
        ("None", "'None' stands for a missing answer"),
        ("N/A", "'N/A' stands for a missing answer"),
    ],
)
def test_what_is_no_gold_answer_is_shown(tmp_path: Path, text: str, message: str) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{"problem": "?", "answer": text}])
    with pytest.raises(UserError, match=re.escape(f"line 1, column 'answer': {message}")):
        load_problems(path)
    assert load_problems(path, answers="words")[0].answer == text


@pytest.mark.parametrize(
    "gold",
    [
        "(n-1)!", "\\frac{d!}{2k(d-k)!}", "2^{2^n}", "\\lambda", "e^{-0.0138629t}", "\\frac\\pi2",
        "\\sqrt[3]2", "\\binom nk", "\\left\\{\\begin{array}{l}x=1\\\\y=2\\end{array}\\right.",
        "\\begin{cases}x&x>0\\\\-x&x\\le0\\end{cases}", "$(2,4)$", "9 (apples)", "2,\\! 345",
    ],
)  # fmt: skip
def test_a_legal_gold_answer_is_loaded_and_equals_itself(tmp_path: Path, gold: str) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{"problem": "?", "answer": gold}])
    [problem] = load_problems(path)
    with Verifier() as verifier:
        assert verifier.verify([(f"\\boxed{{{problem.answer}}}", problem.answer)])[0].correct


def test_several_answers_are_all_asked_for(tmp_path: Path) -> None:
    """OlympiadBench has lists."""
    rows: list[dict[str, object]] = [
        {"question": "?", "final_answer": answers} for answers in (["$2$"], ["1", "$-3$"])
    ]
    path = write_jsonl(tmp_path / "set.jsonl", rows)
    problems = load_problems(path, columns={"statement": "question", "answer": "final_answer"})
    assert [p.answer for p in problems] == ["$2$", "1, $-3$"]
    with Verifier() as verifier:
        verdicts = verifier.verify([("\\boxed{-3, 1}", problems[1].answer)] * 1)
        assert verdicts[0].correct
        assert not verifier.verify([("\\boxed{1}", problems[1].answer)])[0].correct


def test_a_dapo_statement_is_kept_if_its_answers_are_equal(tmp_path: Path) -> None:
    rows = [dapo_row("One?", text, f"{i}") for i, text in enumerate(("34", "34.0", "034"))]
    rows += [dapo_row("Two?", "1/2", "a"), dapo_row("Two?", "\\frac{1}{2}", "b")]
    path = write_parquet(tmp_path / "d.parquet", rows)
    problems = load_problems("dapo-math-17k", path=path)
    assert [(p.id, p.answer) for p in problems] == [("0", "34"), ("a", "1/2")]


def test_a_dapo_chat_may_begin_with_a_system_turn(tmp_path: Path) -> None:
    row = dapo_row("One?", "5", "a")
    row["prompt"] = [{"role": "system", "content": "Be brief."}, *row["prompt"]]  # type: ignore[misc]
    path = write_parquet(tmp_path / "d.parquet", [row])
    assert load_problems("dapo-math-17k", path=path)[0].statement == "One?"


BAD_ROWS = (
    '{"id": "a", "problem": "?", "answer": "1"}\n{"id": "b", "problem": \n'
    '{"id": "c", "problem": "?", "answer": "nan"}\n{"id": "a", "problem": "?", "answer": "2"}\n'
    '{"id": "d", "problem": "?", "answer": "2"}\n'
)


def test_all_bad_rows_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(BAD_ROWS)
    with pytest.raises(UserError) as caught:
        load_problems(path)
    first, *rows = str(caught.value).splitlines()
    assert first == "3 bad rows; skip_bad leaves them out:"
    assert [row.split(", ")[1].split(":")[0] for row in rows] == ["line 2", "line 3", "line 4"]


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(BAD_ROWS)
    with pytest.warns(UserWarning, match=r"3 bad rows were skipped:\n .*line 2"):
        problems = load_problems(path, skip_bad=True)
    assert [p.id for p in problems] == ["a", "d"]
    with pytest.warns(UserWarning, match="3 bad rows were skipped"):
        assert [p.id for p in load_problems(path, skip_bad=True, limit=2)] == ["a", "d"]


def test_a_file_of_bad_rows_holds_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("[]\n" * 30)
    with pytest.raises(UserError, match=r"30 bad rows") as caught:
        load_problems(path)
    assert str(caught.value).endswith("\n  ...")
    with (
        pytest.warns(UserWarning, match="30 bad rows were skipped"),
        pytest.raises(UserError, match="holds no problems"),
    ):
        load_problems(path, skip_bad=True)


def test_aime_2025_loads_from_a_folder_like_the_hubs(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"problem": "Find $b > 9$.", "answer": "70", "id": "0"},
        {"problem": "Find 角 $C$.", "answer": "588", "id": "1"},
    ]
    write_jsonl(tmp_path / "aime25" / "test.jsonl", rows)
    problems = load_problems("aime-2025", path=tmp_path / "aime25")
    assert [(p.id, p.statement, p.answer) for p in problems] == [
        ("0", "Find $b > 9$.", "70"),
        ("1", "Find 角 $C$.", "588"),
    ]


def test_aimo_2025_is_kaggles_csv(tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    path.write_text('id,problem,answer\n057f8a,"Three airline\ncompanies, ""and"" more",79\n')
    assert load_problems("aimo-2025", path=path) == (
        Problem(
            id="057f8a",
            statement='Three airline\ncompanies, "and" more',
            answer="79",
            source="aimo-2025",
        ),
    )


def test_aimo_2025_without_its_file_says_where_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"not on the hub: download reference\.csv"):
        load_problems("aimo-2025")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "folder"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, object]] = [
        {"key": "p", "question": "What is $x$?", "target": "3/4"},
        {"key": "q", "question": "And {0} $y$?", "target": "-12"},
    ]
    path = tmp_path / f"set.{kind}"
    if kind == "jsonl":
        write_jsonl(path, rows)
    elif kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "parquet":
        write_parquet(path, rows)
    else:
        write_jsonl(path / "train.jsonl", rows)
    columns = Columns(statement="question", answer="target", id="key")
    assert load_problems(path, columns=columns) == (
        Problem(id="p", statement="What is $x$?", answer="3/4", source="set"),
        Problem(id="q", statement="And {0} $y$?", answer="-12", source="set"),
    )


@pytest.mark.parametrize("statement", ["question", "prompt", "Aufgabe"])
@pytest.mark.parametrize("answer", ["final", "solution", "answer"])
@pytest.mark.parametrize("as_mapping", [True, False])
def test_columns_are_a_value_or_a_mapping(
    tmp_path: Path, statement: str, answer: str, as_mapping: bool
) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{statement: "1+1", answer: 2}])
    names = {"statement": statement, "answer": answer}
    columns: ColumnNames = names if as_mapping else Columns(**names)
    assert load_problems(path, columns=columns) == (
        Problem(id="set-0", statement="1+1", answer="2", source="set"),
    )


def test_a_mapping_changes_the_columns_it_names_of_a_named_source(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{"number": 5, "problem": "?", "solution": "7"}])
    [problem] = load_problems("aime-2024", path=path, columns={"id": "number"})
    assert (problem.id, problem.answer) == ("5", "7")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"statment": "question"},
            "unknown key 'statment' in columns: did you mean 'statement'? There are statement,"
            " answer, id",
        ),
        ({"zzz": "question"}, "unknown key 'zzz' in columns. There are statement, answer, id"),
        ({0: "question"}, "unknown key 0 in columns. There are statement, answer, id"),
        ({"answer": 2}, "the column of the answer must be a string, not 2"),
        ({"statement": None}, "the column of the statement must be a string, not None"),
        ("question", "columns must be a mapping or Columns, not 'question'"),
    ],
)
def test_columns_of_another_kind_are_refused_and_shown(columns: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_problems("sample", columns=columns)


def test_a_folder_has_splits(tmp_path: Path) -> None:
    for split, answer in (("train", 1), ("test", 2)):
        row: dict[str, object] = {"id": 0, "problem": "?", "answer": answer}
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", [row])
    assert load_problems(tmp_path / "set")[0].answer == "1"
    assert load_problems(tmp_path / "set", split="test")[0].answer == "2"
    with pytest.raises(ValueError, match=r"set: .*train.*test"):
        load_problems(tmp_path / "set", split="dev")


def test_a_data_set_has_subsets_each_with_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for subset, answer in (("easy", 1), ("hard", 2)):
        row: dict[str, object] = {"id": 0, "problem": "?", "answer": answer}
        write_jsonl(folder / subset / "test.jsonl", [row])
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: easy\n  data_files: [{split: test, path: easy/test.jsonl}]\n"
        "- config_name: hard\n  data_files: [{split: test, path: hard/test.jsonl}]\n"
        "---\n"
    )
    assert load_problems(folder, subset="easy", split="test")[0].answer == "1"
    assert load_problems(folder, subset="hard", split="test")[0].answer == "2"
    with pytest.raises(UserError, match=r"(?s)set: .*easy.*hard"):
        load_problems(folder, split="test")
    with pytest.raises(UserError, match=r"(?s)set: .*middling"):
        load_problems(folder, subset="middling", split="test")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("argument", ["split", "subset"])
def test_one_file_has_no_splits_and_no_subsets(tmp_path: Path, kind: str, argument: str) -> None:
    path = tmp_path / f"set.{kind}"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=rf"set\.{kind} is one file: it has no {argument}.*'test'"):
        load_problems(path, **{argument: "test"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [{"split": "test"}, {"subset": "main"}, {"columns": Columns(statement="question")}]
)
def test_procedural_problems_are_in_no_file(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"procedural problems have no {next(iter(given))}"):
        load_problems("synthetic", **given)


@pytest.mark.parametrize("source", ["sample", "synthetic"])
@pytest.mark.parametrize("limit", [1, 3, 10_000])
def test_a_limit_keeps_the_first_problems(source: str, limit: int) -> None:
    assert load_problems(source, limit=limit) == load_problems(source)[:limit]


def test_a_limit_counts_problems_and_not_the_rows_that_repeat_them(tmp_path: Path) -> None:
    rows = [dapo_row("One?", "1", "a"), dapo_row("One?", "1", "b"), dapo_row("Two?", "2", "c")]
    path = write_parquet(tmp_path / "d.parquet", rows)
    assert [p.id for p in load_problems("dapo-math-17k", path=path, limit=2)] == ["a", "c"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UserError, match=f"limit must be at least 1, not {limit}"):
        load_problems("sample", limit=limit)


def test_a_limit_is_a_whole_number() -> None:
    with pytest.raises(UserError, match="limit must be a whole number, not '3'"):
        load_problems("sample", limit="3")  # type: ignore[arg-type]


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [{"problem": "?", "answer": 1}] * 2)
    for columns in (None, Columns(id=None), {"id": None}):
        assert [p.id for p in load_problems(path, columns=columns)] == ["set-0", "set-1"]
    with pytest.raises(MissingColumnError, match=r"line 1, column 'key': missing"):
        load_problems(path, columns={"id": "key"})


def test_a_file_with_ids_has_one_in_every_row(tmp_path: Path) -> None:
    row: dict[str, object] = {"problem": "?", "answer": 1}
    path = write_jsonl(tmp_path / "set.jsonl", [row | {"id": "a"}, row])
    with pytest.raises(UserError, match="line 2, column 'id': missing"):
        load_problems(path)
    assert [p.id for p in load_problems(path, columns={"id": None})] == ["set-0", "set-1"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": "b", "problem": " ", "answer": "1"}, "column 'problem': empty"),
        ({"id": "", "problem": "?", "answer": "1"}, "column 'id': empty"),
        ({"id": "a", "problem": "?", "answer": "1"}, "column 'id': id 'a' stands also in"),
        ({"id": "b", "problem": "?", "answer": ""}, "column 'answer': empty"),
        ({"id": "b", "problem": "?", "answer": "\\frac{1}{"}, "column 'answer': "),
    ],
)
def test_a_bad_problem_names_file_line_and_column(
    tmp_path: Path, kind: str, bad: dict[str, object], message: str
) -> None:
    rows: list[dict[str, object]] = [{"id": "a", "problem": "?", "answer": "1"}, bad]
    path = tmp_path / f"set.{kind}"
    if kind == "parquet":
        write_parquet(path, rows)
        place = "row 2"
    elif kind == "csv":
        path.write_text("id,problem,answer\n" + "\n".join(",".join(r.values()) for r in rows))  # type: ignore[arg-type]
        place = "line 3"
    else:
        write_jsonl(path, rows)
        place = "line 2"
    with pytest.raises(ValueError, match=rf"set\.{kind}, {place}, {message}"):
        load_problems(path)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            {"question": "?", "final": "1"},
            None,
            "column 'problem': missing (columns: question, final); name them:"
            ' columns={"statement": "question", "answer": "final"}',
        ),
        (
            {"id": 1, "question": "?", "answer": "1"},
            None,
            "column 'problem': missing (columns: id, question, answer); name them:"
            ' columns={"statement": "question", "answer": "answer"}',
        ),
        (
            {"prompt": [{"content": "?"}], "Lösung": "1"},
            {"id": "key"},
            "column 'problem': missing (columns: prompt, Lösung); name them:"
            ' columns={"statement": "...", "answer": "...", "id": "..."}',
        ),
        (
            {"problem": "?", "solution": "1", "key": 3},
            {"id": "key"},
            "column 'answer': missing (columns: problem, solution, key); name them:"
            ' columns={"statement": "problem", "answer": "solution", "id": "key"}',
        ),
    ],
)
def test_a_missing_column_shows_those_there_are_and_how_to_name_them(
    tmp_path: Path, row: dict[str, object], columns: ColumnNames | None, message: str
) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", [row])
    with pytest.raises(MissingColumnError, match=re.escape(f"line 1, {message}") + "$"):
        load_problems(path, columns=columns)


def remedy(source: Path) -> dict[str, str]:
    """Return the columns that the error of a source suggests."""
    with pytest.raises(MissingColumnError) as caught:
        load_problems(source)
    columns: dict[str, str] = json.loads(str(caught.value).partition("columns=")[2])
    return columns


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("statement", ["question", "prompt", "input", "text"])
@pytest.mark.parametrize("answer", ["final_answer", "target", "ground_truth", "solution"])
def test_the_columns_that_an_error_suggests_load_the_file(
    tmp_path: Path, kind: str, statement: str, answer: str
) -> None:
    row: dict[str, object] = {"level": "5", answer: "2", statement: "1+1"}
    path = tmp_path / f"set.{kind}"
    if kind == "jsonl":
        write_jsonl(path, [row])
    elif kind == "csv":
        path.write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    else:
        write_parquet(path, [row])
    [problem] = load_problems(path, columns=remedy(path))
    assert (problem.id, problem.statement, problem.answer) == ("set-0", "1+1", "2")


def test_a_file_that_is_no_parquet_is_a_value_error_naming_it(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"set\.parquet"):
        load_problems(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no problems"):
        load_problems(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("aime2024", r"unknown problem source 'aime2024': did you mean 'aime-2024'\?"),
        ("DAPO-Math-17K", "did you mean 'dapo-math-17k'"),
        ("sampel", "did you mean 'sample'"),
        ("", r"unknown problem source ''\. There are"),
        ("zzz", r"unknown problem source 'zzz'\. There are .*aime-2024"),
        ("missing.jsonl", "no such file: 'missing.jsonl'"),
        (Path("sample"), "no such file: 'sample'"),
    ],
)
def test_an_unknown_source_names_one_that_is_alike(source: str | Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_problems(source)


def test_a_path_belongs_to_a_named_source_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path is for a named source"):
        load_problems("mine", path=tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        load_problems("aime-2025", path=tmp_path / "missing")


@pytest.mark.parametrize("source", ["sample", "synthetic"])
def test_what_ships_with_the_package_loads_and_verifies(source: str) -> None:
    problems = load_problems(source)
    assert len({p.id for p in problems}) == len(problems) >= 10
    assert source in SOURCES
    with Verifier() as verifier:
        verdicts = verifier.verify([(rf"\boxed{{{p.answer}}}", p.answer) for p in problems])
    assert all(verdict.correct for verdict in verdicts)


def test_a_file_that_is_missing_beside_others_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown problem source 'data/aime'"):
        load_problems("data/aime")


def test_a_hub_id_reaches_the_hub_loader() -> None:
    code = (
        "from eapo_env.problems import load_problems\n"
        "try:\n    load_problems('nobody/nothing')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, 'nobody/nothing' in str(error))\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": "/nonexistent"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=offline,
        check=False,
    )
    assert result.stdout.split() == ["UserError", "True"], result.stderr
