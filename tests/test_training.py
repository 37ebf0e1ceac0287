"""Chapter 6: loss, optimizer, schedule, accumulation, checkpoints that survive a kill."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2 import training
from gpt2.data import IGNORE, PackedWindows, pad_rows
from gpt2.decoder import GPT, GPTConfig
from gpt2.training import (
    CHECKPOINT,
    TrainingConfig,
    backward,
    evaluate,
    learning_rate,
    load_checkpoint,
    load_model,
    new_optimizer,
    next_token_loss,
    parameter_groups,
    read_checkpoint,
    read_metrics,
    save_checkpoint,
    train,
    train_step,
)

SHAPE = GPTConfig(n_vocab=31, n_ctx=8, n_embd=16, n_head=2, n_layer=2)
SHORT = TrainingConfig(n_steps=12, n_warmup=3, log_every=1, save_every=4)
TOKENS = np.random.default_rng(0).integers(0, 31, 400).astype(np.uint16)


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-equality is promised for the same machine and number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(SHAPE)


def windows() -> PackedWindows:
    return PackedWindows(TOKENS, SHAPE.n_ctx, batch_size=4, seed=0)


def gradient(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# --- the loss, against transformers, which shifts the labels itself


def reference_loss(model: GPT, ids: Tensor) -> Tensor:
    """The loss of the transformers library with our weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=SHAPE.n_vocab, n_positions=ids.size(1), n_embd=SHAPE.n_embd,
        n_head=SHAPE.n_head, n_layer=SHAPE.n_layer, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    reference = GPT2LMHeadModel(config).eval()
    weights = {}
    for name, value in model.state_dict().items():
        linear = name.endswith("weight") and any(
            part in name for part in ("c_attn", "c_proj", "c_fc")
        )
        weights[f"transformer.{name}"] = value.T if linear else value
    reference.load_state_dict(weights, strict=False)
    return reference(ids, labels=ids).loss


def check_shift(backward: Callable) -> None:
    """One window of T + 1 tokens, given as (x, y): the loss that labels = ids gives."""
    model = new_model()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)  # far from uniform, so that a wrong target is seen
    model.wpe = nn.Embedding.from_pretrained(torch.randn(9, SHAPE.n_embd))
    ids = torch.randint(SHAPE.n_vocab, (3, 9))
    loss, n_targets = backward(model, [(ids[:, :-1], ids[:, 1:])], "float32")
    assert n_targets == 24
    torch.testing.assert_close(loss, reference_loss(model, ids), rtol=1e-5, atol=1e-5)


def not_shifted(model, batches, precision):
    return backward(model, [(x, x) for x, _ in batches], precision)


def shifted_twice(model, batches, precision):
    (x, y) = batches[0]
    again = torch.cat((y[:, 1:], torch.full_like(y[:, :1], IGNORE)), dim=1)
    return backward(model, [(x, again)], precision)[0], y.numel()


def test_loss_is_that_of_transformers_with_shifted_labels():
    check_shift(backward)


@pytest.mark.parametrize("mutant", [not_shifted, shifted_twice])
def test_targets_not_shifted_or_shifted_twice_are_seen(mutant):
    with pytest.raises(AssertionError):
        check_shift(mutant)


def test_loss_is_cross_entropy_over_the_targets_that_count():
    logits, targets = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    targets[0, 3:] = IGNORE
    by_hand = -torch.stack(
        [
            logits[b, t].log_softmax(-1)[targets[b, t]]
            for b in range(2)
            for t in range(5)
            if targets[b, t] != IGNORE
        ]
    ).mean()
    torch.testing.assert_close(next_token_loss(logits, targets), by_hand, rtol=1e-5, atol=1e-6)


def test_uniform_logits_cost_ln_v():
    loss = next_token_loss(torch.zeros(2, 3, 50257), torch.randint(50257, (2, 3)))
    assert float(loss) == pytest.approx(math.log(50257), abs=1e-5)


# --- AdamW


def adamw_by_hand(p, grads, lr, betas, decay, eps=1e-8):
    """Algorithm 2 of Loshchilov and Hutter (2019), in float64."""
    p, m, v = p.double().clone(), 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        g = g.double()
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * (m_hat / (v_hat.sqrt() + eps) + decay * p)
    return p.float()


def check_optimizer(new_optimizer: Callable) -> None:
    """Five steps equal the algorithm, and the matrix decays, the bias and the LayerNorm do not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    config = TrainingConfig(learning_rate=0.1, min_learning_rate=0.01, weight_decay=0.5)
    begin = [p.detach().clone() for p in model.parameters()]
    grads = [[torch.randn_like(p) for p in model.parameters()] for _ in range(5)]
    optimizer = new_optimizer(model, config)
    for step in grads:
        for p, g in zip(model.parameters(), step, strict=True):
            p.grad = g
        optimizer.step()
    for i, p in enumerate(model.parameters()):
        decay = 0.5 if p.dim() == 2 else 0.0
        expected = adamw_by_hand(begin[i], [g[i] for g in grads], 0.1, config.betas, decay)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-5)


def decays_everything(model, config):
    return torch.optim.AdamW(
        model.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay
    )


def decay_in_the_gradient(model, config):
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.Adam(groups, config.learning_rate, config.betas)


def test_optimizer_is_adamw_with_decay_on_matrices_alone():
    check_optimizer(new_optimizer)


@pytest.mark.parametrize("mutant", [decays_everything, decay_in_the_gradient])
def test_decay_on_biases_or_in_the_gradient_is_seen(mutant):
    with pytest.raises(AssertionError):
        check_optimizer(mutant)


def test_every_parameter_is_in_one_group_and_names_tell_which():
    model = new_model()
    decayed, kept = (group["params"] for group in parameter_groups(model, 0.1))
    assert len(decayed) + len(kept) == len(list(model.parameters()))
    ids = {id(p) for p in decayed}
    for name, p in model.named_parameters():
        assert (id(p) in ids) == (name.endswith("weight") and "ln_" not in name), name


# --- the schedule


def check_schedule(learning_rate: Callable) -> None:
    """The schedule of transformers, whose step 0 is the start and not the first step."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    config = TrainingConfig(n_steps=40, n_warmup=7, learning_rate=0.5, min_learning_rate=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = get_cosine_with_min_lr_schedule_with_warmup(optimizer, 7, 40, min_lr=0.1)
    for step in range(40):
        optimizer.step()
        reference.step()
        assert learning_rate(step, config) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
    assert learning_rate(6, config) == 0.5
    assert learning_rate(39, config) == pytest.approx(0.1, abs=1e-12)


def test_schedule_is_warm_up_and_cosine():
    check_schedule(learning_rate)


@pytest.mark.parametrize("shift", [-1, 1])
def test_schedule_off_by_one_is_seen(shift):
    with pytest.raises(AssertionError):
        check_schedule(lambda step, config: learning_rate(step + shift, config))


@given(st.integers(1, 300), st.integers(0, 299))
def test_rate_stays_above_zero_and_below_the_peak(n_steps, n_warmup):
    config = TrainingConfig(n_steps=n_steps, n_warmup=min(n_warmup, n_steps - 1))
    rates = [learning_rate(step, config) for step in range(n_steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    assert rates[-1] == pytest.approx(config.min_learning_rate)
    falling = rates[max(config.n_warmup - 1, 0) :]
    assert falling == sorted(falling, reverse=True)


# --- gradients: accumulation, clipping, precision


def check_accumulation(backward: Callable, lengths: list[int]) -> None:
    """Rows one by one, or padded into one batch: the same loss and gradient."""
    rows = [torch.randint(31, (n,)).tolist() for n in lengths]
    model = new_model()
    whole, n_whole = backward(model, [pad_rows(rows, 30, SHAPE.n_ctx)], "float32")
    expected = gradient(model)
    model.zero_grad()
    parts, n_parts = backward(model, [pad_rows([row], 30, SHAPE.n_ctx) for row in rows], "float32")
    assert n_whole == n_parts
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(model), expected, rtol=1e-5, atol=1e-6)


def mean_of_means(model, batches, precision):
    loss, n = torch.zeros(()), 0
    for x, y in batches:
        part = next_token_loss(model(x), y) / len(batches)
        part.backward()
        loss, n = loss + part.detach(), n + int((y != IGNORE).sum())
    return loss, n


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_accumulation_equals_the_large_batch(lengths):
    check_accumulation(backward, lengths)


def test_mean_of_means_with_unequal_padding_is_seen():
    check_accumulation(mean_of_means, [5, 5])  # it passes where all rows are alike
    with pytest.raises(AssertionError):
        check_accumulation(mean_of_means, [1, 7])


def test_a_step_takes_accumulate_batches_and_no_batch_twice():
    asked = []

    class Listening(PackedWindows):
        def batch(self, step):
            asked.append(step)
            return super().batch(step)

    config = TrainingConfig(n_steps=5, n_warmup=0, accumulate=3)
    model, batches = new_model(), Listening(TOKENS, 8, 2)
    optimizer = new_optimizer(model, config)
    for step in range(4):
        train_step(model, optimizer, batches, step, config)
    assert asked == list(range(12))


def check_clip(train_step: Callable) -> None:
    """With plain descent, the weights move by exactly rate times clip if the gradient is longer."""
    config = TrainingConfig(
        n_steps=10, n_warmup=0, clip=0.01, learning_rate=1.0, min_learning_rate=1.0
    )
    model = new_model()
    begin = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    _, grad_norm, _ = train_step(model, optimizer, windows(), 0, config)
    assert grad_norm > 0.1  # as it was before clipping
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - begin
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def clip_after_the_step(model, optimizer, batches, step, config):
    optimizer.zero_grad()
    loss, n = backward(model, [batches.batch(step)], config.precision)
    optimizer.step()
    return loss, nn.utils.clip_grad_norm_(model.parameters(), config.clip), n


def test_gradient_is_clipped_before_the_step():
    check_clip(train_step)


def test_clip_after_the_step_is_seen():
    with pytest.raises(AssertionError):
        check_clip(clip_after_the_step)


def test_bfloat16_rounds_products_and_leaves_weights_and_gradients_in_float32():
    model, batch = new_model(), windows().batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(batch[0]).dtype == torch.bfloat16
    low, _ = backward(model, [batch], "bfloat16")
    assert {p.dtype for p in model.parameters()} == {gradient(model).dtype} == {torch.float32}
    model.zero_grad()
    exact, _ = backward(model, [batch], "float32")
    assert 0 < abs(float(low - exact)) < 0.01


def test_evaluate_is_the_mean_over_all_targets_whatever_the_batches():
    model, tokens = new_model(), TOKENS[:50]
    losses = []
    for i in range(49):
        start = min(i // 8 * 8, 50 - 9)  # the last window reaches back, and its repeats are ignored
        ids = torch.from_numpy(tokens[start : i + 1].astype(np.int64))[None]
        logits = model(ids).detach()
        losses.append(float(F.cross_entropy(logits[0, -1], torch.tensor(int(tokens[i + 1])))))
    for batch_size in (1, 3, 64):
        found = evaluate(model, PackedWindows(tokens, 8, batch_size, seed=batch_size))
        assert found == pytest.approx(sum(losses) / 49, abs=1e-5)
    assert model.training


# --- checkpoints and resume


class Interrupted(Exception):
    """What stops a run in these tests, where no real kill is needed."""


class Breaking(PackedWindows):
    """Windows that stop the run when batch number `stop` is asked for."""

    stop = -1

    def batch(self, step):
        if step == self.stop:
            raise Interrupted
        return super().batch(step)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(folder / CHECKPOINT)[1]


def assert_same_run(a: Path, b: Path) -> None:
    """Two runs left the same bits, and the same measurements but for the time."""
    one, two = tensors_of(a), tensors_of(b)
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]
    rows = [read_metrics(folder / "metrics.csv") for folder in (a, b)]
    for row in rows[0] + rows[1]:
        row.pop("tokens_per_second")
    assert rows[0] == rows[1]


def run(folder: Path, stop: int = -1, model: Callable = new_model, **options) -> None:
    batches = Breaking(TOKENS, SHAPE.n_ctx, 4)
    batches.stop = stop
    train(model(), batches, SHORT, folder, windows(), progress=False, **options)


def check_resume(folder: Path, stop: int, model: Callable = new_model) -> None:
    """A run that breaks at step `stop` and is resumed is the run that did not."""
    run(folder / "whole", model=model)
    with pytest.raises(Interrupted):
        run(folder / "broken", stop=stop, model=model)
    torch.manual_seed(99)  # a new process would not find the old generator
    run(folder / "broken", model=model, resume=True)
    assert_same_run(folder / "whole", folder / "broken")


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 8, 11])
def test_resume_is_bit_equal(tmp_path, stop):
    check_resume(tmp_path, stop)


class Dropping(GPT):
    """A reader's model that draws random numbers in each step."""

    def forward(self, idx, past=None):
        return F.dropout(super().forward(idx, past), 0.5, self.training)


def dropping(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return Dropping(SHAPE)


def test_resume_is_bit_equal_where_the_model_draws_random_numbers(tmp_path):
    check_resume(tmp_path, 6, dropping)


def forgets_the_optimizer(path, model, optimizer, config):
    step = load_checkpoint(path, model, optimizer, config)
    optimizer.state.clear()
    return step


def forgets_the_weights(path, model, optimizer, config):
    fresh = new_model(1).state_dict()
    step = load_checkpoint(path, model, optimizer, config)
    model.load_state_dict(fresh)
    return step


def forgets_the_step(path, model, optimizer, config):
    load_checkpoint(path, model, optimizer, config)
    return 0


@pytest.mark.parametrize("mutant", [forgets_the_optimizer, forgets_the_weights, forgets_the_step])
def test_resume_that_forgets_is_seen(tmp_path, monkeypatch, mutant):
    monkeypatch.setattr(training, "load_checkpoint", mutant)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6)


def test_resume_that_restarts_the_data_is_seen(tmp_path, monkeypatch):
    def restarts(path, model, optimizer, config):
        start = load_checkpoint(path, model, optimizer, config)
        honest = Breaking.batch
        monkeypatch.setattr(Breaking, "batch", lambda self, step: honest(self, step - start))
        return start

    monkeypatch.setattr(training, "load_checkpoint", restarts)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6)


def test_resume_that_forgets_the_random_state_is_seen(tmp_path, monkeypatch):
    def forgets(path, model, optimizer, config):
        step = load_checkpoint(path, model, optimizer, config)
        torch.manual_seed(5)
        return step

    monkeypatch.setattr(training, "load_checkpoint", forgets)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6, dropping)


KILLED = """
import os, signal, sys, resource
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_training as t
from gpt2 import training

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{how}
t.run(t.Path({folder!r}))
"""

KILL_IN_A_STEP = """
honest = t.Breaking.batch
t.Breaking.batch = lambda self, step: die() if step == 7 else honest(self, step)
"""
KILL_IN_A_SAVE = """
count, honest = [], os.replace
def replace(source, target):
    if str(target).endswith(t.CHECKPOINT):
        count.append(1)
        if len(count) == 3:  # steps 0, 4 and now 8: written, not yet in its place
            die()
    honest(source, target)
os.replace = replace
"""
FULL_DISK = """
honest = t.training.save_file
def save_file(tensors, path, header):
    if len(tensors) > 40:  # with AdamW's memory: more room than there is
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    honest(tensors, path, header)
t.training.save_file = save_file
"""


def run_elsewhere(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), how=how)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


@posix
@pytest.mark.parametrize("how", [KILL_IN_A_STEP, KILL_IN_A_SAVE], ids=["step", "save"])
def test_resume_after_a_real_kill_is_bit_equal(tmp_path, how):
    assert run_elsewhere(tmp_path / "killed", how).returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "killed" / CHECKPOINT)[0]["step"] == 4
    run(tmp_path / "killed", resume=True)
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@posix
def test_full_disk_is_named_and_costs_no_checkpoint(tmp_path):
    result = run_elsewhere(tmp_path / "run", FULL_DISK)
    assert result.returncode == 1
    assert "OSError: cannot write" in result.stderr and "make room" in result.stderr
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)[0]["step"] == 0
    assert not list((tmp_path / "run").glob("*.tmp"))
    run(tmp_path / "run", resume=True)
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_metrics_hold_each_step_once_and_no_half_row(tmp_path):
    run(tmp_path)
    path = tmp_path / "metrics.csv"
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 13))
    assert [row["step"] for row in read_metrics(path) if row["validation"]] == [4, 8, 12]
    path.write_text(path.read_text() + "13,2.5,0.")  # a kill in the middle of a row
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 13))
    training.open_metrics(path, 6)
    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("123456")


def test_load_model_reads_what_was_trained(tmp_path):
    run(tmp_path)
    model = load_model(tmp_path)
    weights = tensors_of(tmp_path)
    assert model.config == SHAPE and not model.training
    assert all(torch.equal(v, weights[f"model.{k}"]) for k, v in model.state_dict().items())
    assert evaluate(load_model(tmp_path / CHECKPOINT), windows()) == evaluate(model, windows())


def test_training_overfits_one_batch(tmp_path):
    config = TrainingConfig(n_steps=150, n_warmup=10, learning_rate=1e-2)
    tokens = TOKENS[:33]
    train(new_model(), PackedWindows(tokens, 8, 4), config, tmp_path, progress=False)
    assert evaluate(load_model(tmp_path), PackedWindows(tokens, 8, 4)) < 0.1


# --- errors that come early and say what to do


def test_a_folder_with_a_run_is_never_written_over(tmp_path):
    run(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes(), (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(FileExistsError, match="resume it, or use another folder"):
        run(tmp_path)
    assert before == ((tmp_path / CHECKPOINT).read_bytes(), (tmp_path / "metrics.csv").read_bytes())


def test_resume_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .* train first"):
        run(tmp_path / "nothing", resume=True)


def test_checkpoint_of_another_configuration(tmp_path):
    model = new_model()
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, model, new_optimizer(model, SHORT), 4, SHORT)
    other = GPT(GPTConfig(n_vocab=32, n_ctx=8, n_embd=16, n_head=2, n_layer=2))
    with pytest.raises(ValueError, match=r"n_vocab = 31 \(not 32\)"):
        load_checkpoint(path, other, new_optimizer(other, SHORT), SHORT)
    longer = TrainingConfig(n_steps=13, n_warmup=3, log_every=1, save_every=4)
    with pytest.raises(ValueError, match=r"n_steps = 12 \(not 13\)"):
        load_checkpoint(path, model, new_optimizer(model, longer), longer)


def test_damaged_checkpoints_are_named(tmp_path):
    path = tmp_path / CHECKPOINT
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        load_model(path)
    run(tmp_path / "run")
    shutil.copy(tmp_path / "run" / CHECKPOINT, path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        load_model(path)
    training.save_file({"a": torch.zeros(1)}, path, {"format": '"pt"'})
    with pytest.raises(ValueError, match="no checkpoint of this trainer"):
        load_model(path)


def test_vocabulary_mismatch(tmp_path):
    foreign = PackedWindows(np.full(100, 31, dtype=np.uint16), 8, 4)
    with pytest.raises(ValueError, match="31 is outside the vocabulary of 31"):
        train(new_model(), foreign, SHORT, tmp_path, progress=False)


def test_text_shorter_than_a_window():
    with pytest.raises(ValueError, match="too few"):
        PackedWindows(TOKENS[:8], 8, 4)


def test_a_run_that_blows_up_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    class Sick(GPT):
        n_calls = 0

        def forward(self, idx, past=None):
            self.n_calls += 1
            return super().forward(idx, past) * (float("nan") if self.n_calls > 30 else 1.0)

    config = TrainingConfig(n_steps=60, n_warmup=3, log_every=20, save_every=25)
    with pytest.raises(FloatingPointError, match="at step 40: the run has diverged"):
        train(Sick(SHAPE), windows(), config, tmp_path, progress=False)
    assert read_checkpoint(tmp_path / CHECKPOINT)[0]["step"] == 25
    assert all(t.isfinite().all() for t in tensors_of(tmp_path).values())


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"precision": "float16"}, "float32.*bfloat16"),
        ({"n_steps": 0}, "n_steps = 0"),
        ({"n_steps": 50}, "n_warmup = 100: take 0 to 49"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"min_learning_rate": 1.0}, "min_learning_rate = 1.0"),
    ],
)
def test_wrong_knobs_are_named(knob, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**knob)
