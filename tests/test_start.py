"""A learner's package: `course start`, and `course check --package` on what is written in it."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import climbing
import pytest

from course import ladder, own, standin, stubs
from course.__main__ import main
from course.chapters import ROOT
from course.ladder import Ascent
from course.standin import COURSE, defined, filled, missing, parts

MODULES = list(COURSE)
STEMS = [course.chapter.stem for course in COURSE.values()]
WITH_MISTAKES = sorted(path.stem for path in (ROOT / "tests" / "mistakes").glob("*.py"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def package(home, capsys):
    """A fresh package `my_gpt2`."""
    assert main(["start", "my_gpt2"]) == 0
    said = capsys.readouterr().out
    assert "course check 4 --package my_gpt2" in said and "attention.py" in said
    return home / "my_gpt2"


@pytest.fixture
def check(package, capsys):
    """Check a chapter; return the exit status and all that was said."""

    def run(chapter, name="my_gpt2"):
        code = main(["check", str(chapter), "--package", name])
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def no_tests(monkeypatch):
    """Fail if the tests of a chapter are run: what is asked can be said without."""
    monkeypatch.setattr(own, "climb_elsewhere", lambda job: pytest.fail("the tests were run"))


@pytest.fixture
def found(monkeypatch):
    """Let the tests of a chapter find what is given; return the jobs they got."""
    jobs, results = [], []

    def climb(job):
        jobs.append(job)
        return results.pop(0)

    monkeypatch.setattr(own, "climb_elsewhere", climb)
    return jobs, results


def rewrite(path, *pairs):
    """Replace each text, which is there once, by another."""
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def written(package, module, names):
    """Write definitions of a module as the course has them."""
    theirs = defined(ast.parse(COURSE[module].source))
    path = package / f"{module}.py"
    tree = ast.parse(path.read_text())
    tree.body = [theirs[stubs.name_of(n)] if stubs.name_of(n) in names else n for n in tree.body]
    path.write_text(ast.unparse(tree))


MASK = (
    'keys as queries."\n        )\n    raise NotImplementedError',
    'keys as queries."\n        )\n    return {}',
)
RIGHT_MASK = "torch.ones(n_dst, n_src, device=device).tril(n_src - n_dst).bool()"


def write_mask(package, code=RIGHT_MASK):
    rewrite(package / "attention.py", (MASK[0], MASK[1].format(code)))


# --- Stubs ---------------------------------------------------------------------------------------


def test_stubs_of_all_modules_import_with_names_and_signatures_of_the_course(package):
    """In plain Python, without anything that stands in."""
    script = (
        "import importlib, inspect, json\n"
        f"for module, names in json.loads({json.dumps(json.dumps(ASKED))}).items():\n"
        "    mine = importlib.import_module(f'my_gpt2.{module}')\n"
        "    theirs = importlib.import_module(f'gpt2.{module}')\n"
        "    assert set(vars(theirs)) <= set(vars(mine)), module\n"
        "    for name in names:\n"
        "        a, b = getattr(mine, name), getattr(theirs, name)\n"
        "        assert a is not b and inspect.getdoc(a) == inspect.getdoc(b), name\n"
        "        said = [list(inspect.signature(f).parameters) for f in (a, b)]\n"
        "        assert said[0] == said[1], said\n"
        "try:\n"
        "    importlib.import_module('my_gpt2.attention').causal_mask(2, 2)\n"
        "except NotImplementedError:\n"
        "    print('all import')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=package.parent,
                         capture_output=True, text=True)  # fmt: skip
    assert run.stdout == "all import\n", run.stderr


ASKED = {module: course.asked for module, course in COURSE.items()}


@pytest.mark.parametrize("module", MODULES)
def test_a_stub_has_nothing_of_the_answer_and_all_that_is_given(module):
    course = COURSE[module]
    text = stubs.stubs(course, "my_gpt2")
    mine, theirs = (defined(ast.parse(source)) for source in (text, course.source))
    assert list(mine) == list(theirs) and "from gpt2" not in text
    for name, node in theirs.items():
        if name not in course.asked:
            assert ast.unparse(mine[name]) == ast.unparse(node), name
            continue
        for part, function in parts(node).items():
            stub = parts(mine[name])[part]
            assert stubs.is_unwritten(stub) and not stubs.is_unwritten(function), part
            assert ast.unparse(stub.body[-1]) == "raise NotImplementedError", part
            assert ast.unparse(stub.args) == ast.unparse(function.args), part
    assert missing(ast.parse(text), module) == course.asked
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize("module", MODULES)
def test_definitions_are_asked_after_those_that_they_use(module):
    asked, nodes = COURSE[module].asked, defined(ast.parse(COURSE[module].source))
    for i, name in enumerate(asked):
        assert not stubs.names_used(nodes[name]) & set(asked[i + 1 :]), name
    for name in asked:
        assert not name.startswith(("_", "check_"))


def test_what_handles_files_is_given():
    assert {"GPT", "causal_mask", "train", "NGram", "Codec"} <= {
        n for a in ASKED.values() for n in a
    }
    for name in (
        "save_checkpoint",
        "load_model",
        "atomic_file",
        "write_tokens",
        "GPTConfig",
        "fetch",
    ):
        assert not any(name in asked for asked in ASKED.values()), name


def test_a_stub_says_what_to_set_and_keeps_the_early_errors():
    text = stubs.stubs(COURSE["attention"], "my_gpt2")
    assert "# Set on self: n_head, c_attn (nn.Linear), c_proj (nn.Linear).\n" in text
    assert "pass at least as many keys as queries" in text and "super().__init__()" in text
    assert "    causal_mask, attention_weights, attend, split_heads, merge_heads,\n" in text


# --- course start --------------------------------------------------------------------------------


def test_start_never_touches_what_is_there_and_writes_what_is_missing(package, capsys):
    (package / "attention.py").write_text("mine = 1\n")
    (package / "bert.py").unlink()
    assert main(["start", "my_gpt2"]) == 0
    assert "has new files: bert.py\n" in capsys.readouterr().out
    assert (package / "attention.py").read_text() == "mine = 1\n"
    assert main(["start", "my_gpt2"]) == 0
    assert "complete, and as it was" in capsys.readouterr().out


def test_a_start_that_was_killed_is_completed_by_the_next(home, monkeypatch):
    real, calls = stubs.write_text, []

    def killed(path, text):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, text)

    monkeypatch.setattr(stubs, "write_text", killed)
    assert main(["start", "my_gpt2"]) == 130
    monkeypatch.setattr(stubs, "write_text", real)
    assert main(["start", "my_gpt2"]) == 0
    names = {path.name for path in (home / "my_gpt2").iterdir()}
    assert names == {"__init__.py", "__main__.py", *(f"{module}.py" for module in MODULES)}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-gpt2", "`course start my_gpt2`"),
        ("a/b", "`course start b`"),
        ("class", "is not a valid package name"),
        ("../x", "`course start x`"),
        ("torch", "torch is installed here already"),
        ("gpt2", "gpt2 is installed here already"),
        ("folder", "is not a package: it has no __init__.py"),
        ("file", "is not a package: it has no __init__.py"),
    ],
)
def test_start_says_what_is_wrong_and_writes_nothing(home, capsys, name, says):
    (home / "folder").mkdir()
    (home / "folder" / "notes.txt").write_text("mine")
    (home / "file").write_text("mine")
    before = sorted(home.rglob("*"))
    said_2 = main(["start", name]), capsys.readouterr().err
    assert said_2[0] == 2 and says in said_2[1]
    assert sorted(home.rglob("*")) == before


# --- course check --package: what can be said without a test --------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_pure_stubs_are_told_what_to_write_first_and_where_its_idea_is(check, no_tests, module):
    chapter, first = COURSE[module].chapter, COURSE[module].asked[0]
    code, said = check(chapter.number)
    assert code == 1 and said.count("to write\n") == len(COURSE[module].asked)
    assert f"Nothing is written yet. Write first:\nmy_gpt2/{module}.py, line " in said
    assert f": `{first}`\n" in said and f'chapters/{chapter.stem}.ipynb, "' in said


@pytest.mark.parametrize(
    ("chapter", "name", "says"),
    [
        (4, "your_gpt2", "`course start your_gpt2` lays one out here"),
        (4, "folder", "is no package, having no __init__.py"),
        (0, "my_gpt2", "chapter 0 builds no module: name one of 1 to 11; `course check 0`"),
        ("x.ipynb", "my_gpt2", "name a chapter, as in `course check 4 --package my_gpt2`"),
        (99, "my_gpt2", "no chapter is called '99'"),
        (9, "my_gpt2", "`course start my_gpt2` writes the files that are missing"),
    ],
)
def test_a_wrong_call_names_the_cure(check, no_tests, package, chapter, name, says):
    (package.parent / "folder").mkdir()
    (package / "bert.py").unlink()
    code, said = check(chapter, name)
    assert code == 2 and says in said, said


def test_a_missing_tool_is_named(check, no_tests, monkeypatch):
    monkeypatch.setattr(own, "TOOLS", ("pytest", "no_such_tool"))
    code, said = check(4)
    assert code == 2 and "the tests need no_such_tool" in said and "pip install" in said


def test_a_syntax_error_is_shown_with_its_line(check, no_tests, package):
    write_mask(package, "torch.ones(n_dst")
    code, said = check(4)
    assert (
        code == 1 and "Python cannot read it yet" in said and "my_gpt2/attention.py, line " in said
    )
    assert "return torch.ones(n_dst" in said and "was never closed" in said


def test_names_must_be_those_of_the_stub(check, no_tests, package):
    rewrite(
        package / "attention.py",
        ("def causal_mask(", "def casual_mask("),
        ("def split_heads(x: Tensor, n_head: int)", "def split_heads(x: Tensor, heads: int)"),
    )
    code, said = check(4)
    assert code == 1 and "is your `casual_mask` meant? Rename it" in said
    assert "`split_heads` takes (x, heads): its parameters are called (x, n_head)." in said


# --- What stands in ------------------------------------------------------------------------------


def run_filled(text, module="attention"):
    """Run a learner's module, filled by the course's code; return its names."""
    names = {"__name__": "mine"}
    exec(compile(filled(ast.parse(text), module), "mine.py", "exec"), names)
    return names


def test_what_is_a_stub_or_missing_is_the_courses_and_the_rest_the_learners():
    names = run_filled("def split_heads(x, n_head):\n    return 'mine'\n")
    assert names["split_heads"](None, 1) == "mine"
    assert names["causal_mask"](2, 2).tolist() == [[True, False], [True, True]]
    text = stubs.stubs(COURSE["attention"], "gpt2").replace(*MASK).replace("return {}", "return 7")
    assert run_filled(text)["causal_mask"](2, 2) == 7


def test_a_class_half_written_keeps_the_learners_half():
    text = stubs.stubs(COURSE["decoder"], "gpt2")
    half = "# Set on self: c_fc (nn.Linear), c_proj (nn.Linear).\n        raise NotImplementedError"
    mine = "self.c_fc, self.c_proj = nn.Linear(n_embd, 7), nn.Linear(7, n_embd)"
    text = text.replace(half, mine)
    mlp = run_filled(text, "decoder")["MLP"](3)
    import torch

    assert mlp.c_fc.out_features == 7 and mlp(torch.zeros(1, 2, 3)).shape == (1, 2, 3)
    assert "MLP.forward" in missing(ast.parse(text), "decoder")
    assert "MLP" not in missing(ast.parse(text), "decoder")


def test_the_command_line_runs_on_the_package_and_says_whose_code_it_is(package):
    write_mask(package)
    run = subprocess.run(
        [sys.executable, "-m", "my_gpt2", "train", "--help"],
        cwd=package.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and "Train a GPT-2" in run.stdout
    assert "attention's attention_weights, attend" in run.stderr and "language_model" in run.stderr


# --- What is said of what the tests find ---------------------------------------------------------


def test_the_first_that_fails_is_shown_and_what_comes_after_waits(check, package, found):
    written(package, "attention", ["causal_mask", "attention_weights", "split_heads"])
    result = Ascent({"causal_mask": 2}, "attention_weights", "tests/t.py::test_x[a b]")
    result.sentence, result.error = "rows sum to one", "row 0 sums to 0.6"
    result.place, result.hint = "my_gpt2/attention.py, line 9: y", "The mask comes too late."
    result.example = "attention_weights(q)\nis 1\nnot 2"
    found[1].append(result)
    code, said = check(4)
    assert code == 1 and found[0][0].mine == ["causal_mask", "attention_weights", "split_heads"]
    for text in (
        "causal_mask          passes 2 tests\n",
        "attention_weights    FAILS\n",
        "attend               to write\n",
        "split_heads          its turn comes after attention_weights\n",
        "attention_weights breaks this rule: rows sum to one.\n   row 0 sums to 0.6\n",
        "my_gpt2/attention.py, line 9: y\n",
        "For example\n   attention_weights(q)\n   is 1\n   not 2\n",
        "It behaves like this mistake: The mask comes too late.\n",
        "pytest 'tests/t.py::test_x[a b]' --package my_gpt2\n",
        "stood in for what is not written: attention's attend, merge_heads,",
    ):
        assert text in said, said


def test_without_a_known_mistake_the_docstring_is_shown(check, package, found):
    write_mask(package)
    found[1].append(Ascent({}, "causal_mask", "tests/t.py::t", "it holds", "assert 1 == 2"))
    assert "Its docstring asks:\n   Say which of n_src keys" in check(4)[1]


def test_a_raise_that_is_still_there_is_named(check, package, found):
    write_mask(package, "1\n    raise NotImplementedError")
    found[1].append(Ascent({}, "causal_mask", "tests/t.py::t", "x", "NotImplementedError"))
    code, said = check(4)
    assert code == 1 and "`raise NotImplementedError` is still in it: delete that line." in said


def test_a_fault_in_an_earlier_chapter_is_looked_for_there(check, package, found):
    write_mask(package)
    written(package, "decoder", ["MLP"])
    failing = Ascent({}, "MLP", "tests/t.py::t", "x", "y")
    found[1].extend([failing, Ascent()])
    code, said = check(5)
    assert (
        code == 1 and "With the course's attention this passes: mend your attention first" in said
    )
    assert (found[0][1].without, found[0][1].only) == (["attention"], "tests/t.py::t")
    found[1].extend([failing, failing])
    assert "mend your attention first" not in check(5)[1]


def test_a_module_that_python_cannot_read_is_the_courses_and_said_so(check, package, found):
    (package / "attention.py").write_text("def f(:\n")
    written(package, "decoder", ["MLP"])
    found[1].append(Ascent({}))
    code, said = check(5)
    assert found[0][0].without == ["attention"] and code == 1
    assert "The course's attention stood in for yours, which Python cannot read:" in said
    assert "my_gpt2/attention.py, line 1: def f(:" in said


def test_what_passes_leads_to_what_comes_next(check, package, found):
    write_mask(package)
    found[1].append(Ascent({"causal_mask": 2}))
    code, said = check(4)
    assert code == 1 and "What is written passes. Write next:\nmy_gpt2/attention.py, line " in said
    assert ": `attention_weights`\n" in said
    written(package, "attention", ASKED["attention"])
    found[1].append(Ascent(dict.fromkeys(ASKED["attention"], 3)))
    code, said = check(4)
    assert code == 0 and "All of chapter 4 is yours: 6 definitions, 18 tests passed." in said
    assert "Next: my_gpt2/decoder.py, course check 5 --package my_gpt2\n" in said


def test_a_module_that_stops_on_import_is_shown_with_its_line(check, package):
    write_mask(package)
    rewrite(package / "attention.py", ("import math\n", "import math\nimport tensorrr\n"))
    code, said = check(4)
    assert code == 1 and "It stops before a test can run:\n   ModuleNotFoundError" in said
    assert "my_gpt2/attention.py, line " in said and "import tensorrr" in said


# --- The ladder ----------------------------------------------------------------------------------


def test_tests_about_wrong_answers_and_commands_ask_nothing_of_a_learner():
    reach = ladder.reach_of_tests(ROOT / "tests" / "test_attention.py", "attention")
    assert "test_wrong_masks_are_caught" not in reach
    assert reach["test_mask_shows_the_past_and_the_present"] == {"causal_mask"}
    assert reach["test_layer_equals_transformers_forward_and_backward"] >= {
        "CausalSelfAttention", "split_heads", "attend", "causal_mask",
    }  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_every_definition_is_reached_by_a_test(module):
    """Or a learner could write anything."""
    reach = ladder.reach_of_tests(ROOT / "tests" / f"test_{module}.py", module)
    assert set(COURSE[module].asked) <= set().union(*reach.values())


def test_an_error_of_the_learners_own_may_have_its_own_words(tmp_path):
    job = ladder.Job("mine", str(tmp_path), "attention", [])
    climber = ladder.Ladder(job)
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "a.py"
    path.write_text("def f():\n    raise ValueError('in my words')\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with climber.lenient(ValueError, match="in yours"):
        names["f"]()
    with pytest.raises(pytest.fail.Exception), climber.lenient(ValueError, match="in yours"):
        raise ValueError("in my words")
    with pytest.raises(TypeError), climber.lenient(ValueError):
        raise TypeError


def test_a_loop_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(ladder, "TEST_SECONDS", 1)
    with pytest.raises(TimeoutError, match="a loop without end"), ladder.time_limit():
        while True:
            pass


@pytest.mark.parametrize("stem", WITH_MISTAKES)
def test_usual_mistakes_are_told_apart_and_from_the_right_answer(stem):
    [module] = [name for name, course in COURSE.items() if course.chapter.stem == stem]
    known = ladder.mistakes_of(module)
    right, seen = vars(ladder.courses_own(module)), {}
    assert set(known.EXAMPLES) <= set(COURSE[module].asked)
    for name in known.EXAMPLES:
        assert ladder.diagnosis(module, name, right[name]) is None, name
    for mistake in climbing.names_of(stem):
        name, wrong = mistake.partition("__")[0], getattr(known, mistake)
        assert len(wrong.__doc__.split()) >= 5, mistake
        _, hint = ladder.diagnosis(module, name, wrong)
        assert hint == " ".join(wrong.__doc__.split()), mistake
        seen.setdefault(name, []).append(mistake)
    assert set(seen) <= set(known.EXAMPLES)


def test_chapters_1_to_11_have_usual_mistakes():
    assert STEMS[:11] == WITH_MISTAKES


def climbed(stem, *mistakes):
    run = subprocess.run([sys.executable, ROOT / "tests" / "climbing.py", stem, *mistakes],
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def check_report(mistake, result, stem):
    [module] = [name for name, course in COURSE.items() if course.chapter.stem == stem]
    wrong = getattr(ladder.mistakes_of(module), mistake)
    assert not result["broken"] and result["test"], (mistake, result)
    assert result["rung"] == mistake.partition("__")[0], (mistake, result)
    assert result["hint"] == " ".join(wrong.__doc__.split()), (mistake, result)


def test_a_mistake_in_the_module_is_reported_with_its_sentence():
    for mistake, result in climbed(
        "04_attention", "attention_weights__mask_after_softmax", "causal_mask__says_what_is_hidden"
    ):
        check_report(mistake, result, "04_attention")


def test_the_learners_tokenizer_is_tested_though_the_tools_have_used_ours():
    [[mistake, result]] = climbed("02_tokens", "count_pieces__characters")
    check_report(mistake, result, "02_tokens")


@pytest.mark.parametrize(
    ("mistake", "mine"),
    [
        # The test that fails replaces a function below `guess_words`, which is right.
        ("guess_word__with_its_space", ["guess_words", "guess_word"]),
        ("windows__any_stride", ["windows"]),  # an error that is not raised
    ],
)
def test_a_patch_is_not_accused_and_a_missing_error_is_reported(tmp_path, mistake, mine):
    job = climbing.write_wrong(tmp_path, "11_pretrained", mistake)
    job.mine = mine
    check_report(mistake, asdict(own.climb_elsewhere(job)), "11_pretrained")


@pytest.mark.soak
@pytest.mark.parametrize("stem", WITH_MISTAKES)
def test_every_usual_mistake_in_the_module_is_reported_with_its_sentence(stem):
    for mistake, result in climbed(stem):
        check_report(mistake, result, stem)


def seldom(chapter):
    """Leave a chapter to `make soak`, but one."""
    return pytest.param(chapter, marks=[pytest.mark.soak] if chapter.number != 4 else [])


@pytest.mark.parametrize(
    "chapter", [seldom(course.chapter) for course in COURSE.values()], ids=lambda c: c.stem
)
def test_a_copy_of_the_courses_own_source_passes(check, package, chapter):
    for module in MODULES:
        shutil.copy(ROOT / "src" / "gpt2" / f"{module}.py", package)
    code, said = check(chapter.number)
    assert code == 0 and f"All of chapter {chapter.number} is yours" in said, said


def test_standing_in_names_whole_modules_and_parts(package):
    write_mask(package)
    line = standin.standing_in(package, ["attention", "decoder"])
    assert line == (
        "attention's attention_weights, attend, split_heads, merge_heads, "
        "CausalSelfAttention; decoder"
    )
