"""Chapter 10's comparison: its pairs, its plan, its pieces, and what it has written down."""

import pytest

from course import translators
from course.__main__ import main
from gpt2.decoder import count_parameters
from gpt2.tokenizer import Tokenizer
from gpt2.training import TrainingConfig, load_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    Tokenizer.load(translators.TRANSLATORS).save(tmp_path)
    monkeypatch.setattr(translators, "TRANSLATORS", tmp_path)
    return tmp_path


def test_pairs_are_the_same_for_a_seed_and_hold_nothing_that_is_tested():
    pairs = translators.read_pairs(0)
    assert pairs == translators.read_pairs(0) != translators.read_pairs(1)
    assert ("the red apple", "빨간 사과") in pairs
    tested = {english for test in translators.tests().values() for english, _ in test}
    assert len(tested) > 200 and not tested & {english for english, _ in pairs}


def test_a_page_that_holds_a_test_item_stops_all(monkeypatch):
    held_out, korean = translators.tests()["phrase"][0]
    page = type("Page", (), {"text": f"{held_out} = {korean}"})
    monkeypatch.setattr(translators.miniweb, "documents", lambda *_: iter([page]))
    with pytest.raises(ValueError, match="seed 3 holds"):
        translators.read_pairs(3)


def test_the_plan_sets_both_models_beside_each_other_in_every_draw():
    runs = list(translators.planned())
    assert len(runs) == len(set(runs))
    for kind in translators.MODELS:
        assert {(n, s) for name, n, s in runs if name == kind} == {(n, s) for _, n, s in runs}
    assert {n for _, n, _ in runs} >= {100, 200, 400}
    assert all(len({s for _, n, s in runs if n == amount}) == 5 for amount in (100, 200, 400))


def test_the_shallower_stacks_share_pairs_and_seeds_with_the_models_they_are_compared_with():
    plan = set(translators.planned())
    shallow = {run for run in plan if run[0] not in translators.MODELS}
    assert {kind for kind, _, _ in shallow} == set(translators.BLOCKS) - {"decoder-only"}
    assert all((kind, n, s) in plan for _, n, s in shallow for kind in translators.MODELS)
    for kind, n_blocks in translators.BLOCKS.items():
        assert len(translators.untrained(kind, 0).decoder) == n_blocks


def test_the_models_are_of_one_size():
    ours, theirs = (translators.untrained(kind, 3) for kind in translators.MODELS)
    assert 1 < count_parameters(theirs) / count_parameters(ours) < 1.06
    with pytest.raises(ValueError, match="'a gpt' is no model; there are encoder-decoder; dec"):
        translators.untrained("a gpt", 0)


def test_a_run_that_is_written_down_is_not_made_again(folder, monkeypatch, capsys):
    made = []

    def run(kind, n_pairs, seed):
        made.append((kind, n_pairs, seed))
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"model": kind, "pairs": n_pairs, "seed": seed, "sentence": 0.5}

    monkeypatch.setattr(translators, "train_on_list", run)
    assert main(["translators"]) == 130
    assert main(["translators"]) == 0
    assert made == [*made[:2], made[2], *list(translators.planned())[2:]]
    written = translators.results()
    assert len(written) == len(list(translators.planned()))
    assert written == sorted(written, key=lambda row: (row["pairs"], row["model"], row["seed"]))


def test_a_run_learns_and_is_scored_on_both_tests(monkeypatch):
    monkeypatch.setattr(translators, "N_ITEMS", 4)
    translators.tests.cache_clear()
    real = translators.train_translator
    monkeypatch.setattr(translators, "train_translator", lambda model, data: real(model, data, 2))
    row = translators.train_on_list("decoder-only", 40, 1)
    translators.tests.cache_clear()
    assert (row["model"], row["pairs"], row["seed"]) == ("decoder-only", 40, 1)
    assert {row["phrase"], row["sentence"]} == {0.0}  # two steps teach nothing


def test_an_interval_is_students():
    """By hand: mean 3, s = sqrt(2.5), 2.776 * s / sqrt(5) = 1.9629."""
    assert translators.t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 1.0371, 4.9629), abs=1e-4)
    assert translators.t_interval([0.2, 0.4]) == pytest.approx((0.3, -0.9706, 1.5706), abs=1e-4)


def test_the_repeating_web_differs_in_its_bilingual_pages_alone(monkeypatch):
    monkeypatch.setattr(translators, "POOL", 2500)
    ours, theirs = (translators.web_pages(1, 0, repeated) for repeated in (True, False))
    changed = [a for a, b in zip(ours, theirs, strict=True) if a != b]
    share = translators.WEB_GENRES["bilingual"] / sum(translators.WEB_GENRES.values())
    assert 0.8 < len(changed) / (share * len(ours)) <= 1.2
    pairs = [(a or c, b or d) for page in changed for a, b, c, d in translators.FORM.findall(page)]
    few = translators.read_pairs(0)[: translators.N_REPEATED]
    assert len(pairs) > len(few) and set(pairs) <= set(few)


def test_a_page_of_the_web_that_holds_a_test_item_stops_all(monkeypatch):
    held_out, korean = translators.tests()["phrase"][0]
    page = type("Page", (), {"text": f"{held_out} = {korean}", "genre": "bilingual"})
    monkeypatch.setattr(translators.miniweb, "documents", lambda *_: iter([page]))
    with pytest.raises(ValueError, match="pool 4 of seed 3 holds"):
        translators.web_pages(3, 4, repeated=False)


@pytest.mark.parametrize("extra", [[], ["--fresh"]])
def test_a_run_on_the_web_goes_on_where_it_stopped(folder, monkeypatch, extra):
    config = TrainingConfig(n_steps=4, learning_rate=4e-3, min_learning_rate=4e-4)
    for name, value in {"WEB_CONFIG": config, "EVERY": 2, "POOL": 40}.items():
        monkeypatch.setattr(translators, name, value)
    monkeypatch.setattr(translators, "ROOT", folder)
    asked = []

    def ask(model):
        asked.append(model.wte.weight.detach().clone())
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(translators, "ask", ask)
    assert main(["translators", "--web", "1", *extra]) == 130
    assert [point["step"] for point in translators.results("web")[0]["curve"]] == [2]
    assert main(["translators", "--web", "1", *extra]) == 0
    assert [point["step"] for point in translators.results("web")[0]["curve"]] == [2, 4]
    assert not (asked[0] == asked[1]).all()


def test_fresh_pages_without_a_web_are_refused(capsys):
    assert main(["translators", "--fresh"]) == 2
    assert "write --web SEED --fresh" in capsys.readouterr().err


def test_the_committed_gpt_of_the_web_translates_what_no_page_held():
    model = load_model(translators.TRANSLATORS / "web.safetensors")
    assert 0.9 < translators.ask(model) <= 1


def test_what_is_written_down_is_of_the_plan():
    plan = list(translators.planned())
    for row in translators.results():
        assert (row["model"], row["pairs"], row["seed"]) in plan
        assert row["n_parameters"] == count_parameters(translators.untrained(row["model"], 0))
        assert 0 <= row["sentence"] <= 1
