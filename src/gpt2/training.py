"""Training: the loss, AdamW, a schedule, checkpoints that survive a kill. Chapter 6."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gpt2.data import IGNORE, Batch, Batches, check_ids
from gpt2.decoder import GPT, GPTConfig
from gpt2.tokenizer import atomic_file

CHECKPOINT = "checkpoint.safetensors"
_COLUMNS = (
    "step",
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "validation",
)


@dataclass(frozen=True)
class TrainingConfig:
    """The hyperparameters of a run. A checkpoint stores them."""

    n_steps: int = 2000
    learning_rate: float = 3e-3  # at the peak
    min_learning_rate: float = None  # type: ignore[assignment]  # a tenth of the peak
    n_warmup: int = None  # type: ignore[assignment]  # 100 steps, or a tenth of fewer
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices, see `parameter_groups`
    clip: float = 1.0  # largest norm of the gradient
    accumulate: int = 1  # batches per step
    precision: str = "float32"  # or "bfloat16", by autocast
    compile: bool = False
    log_every: int = 10  # steps
    save_every: int = 250  # steps
    n_validation: int = 50  # batches that are measured at each checkpoint

    def __post_init__(self) -> None:
        derived = {
            "min_learning_rate": round(self.learning_rate / 10, 12),
            "n_warmup": min(100, self.n_steps // 10),
        }
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the way into a frozen dataclass
        _check_config(self)


def _check_config(config: TrainingConfig) -> None:
    """Raise ValueError for a setting that no run can have."""
    if config.precision not in ("float32", "bfloat16"):
        raise ValueError(
            f"precision {config.precision!r}: take 'float32' or 'bfloat16'."
        )
    above_0 = "n_steps learning_rate clip accumulate log_every save_every"
    for name in above_0.split():
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} = {getattr(config, name)}: it must be above 0.")
    if not 0 <= config.n_warmup < config.n_steps:
        raise ValueError(
            f"n_warmup = {config.n_warmup}: take 0 to {config.n_steps - 1}."
        )
    if not 0 <= config.min_learning_rate <= config.learning_rate < math.inf:
        raise ValueError(
            f"min_learning_rate = {config.min_learning_rate} and learning_rate = "
            f"{config.learning_rate}: take finite ones, the first not above the second."
        )


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -ln p(target), in nats per token: (..., V), (...) -> ().

    The targets are shifted already: `targets[:, t]` follows `idx[:, t]`. IGNORE does
    not count. Raises ValueError for shapes that do not fit.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need targets {tuple(logits.shape[:-1])}, "
            f"not {tuple(targets.shape)}: the vocabulary is the last dimension."
        )
    rows = logits.reshape(-1, logits.size(-1))  # (N, V)
    return F.cross_entropy(rows, targets.flatten(), ignore_index=IGNORE)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine down.

    Steps count from 0. The last warm-up step has the peak; step n_steps - 1, and any
    after it, the minimum.
    """
    high, low = config.learning_rate, config.min_learning_rate
    if step < config.n_warmup:
        return high * ((step + 1) / config.n_warmup)
    way = (step + 1 - config.n_warmup) / (config.n_steps - config.n_warmup)  # 0 to 1
    return low + (high - low) * (1 + math.cos(math.pi * min(way, 1.0))) / 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Separate matrices and embeddings, which decay, from biases and LayerNorms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def new_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Make AdamW over both groups, in one fused kernel.

    Source: Loshchilov and Hutter 2019.
    """
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, fused=True
    )


def backward(model: GPT, batches: list[Batch], precision: str) -> tuple[Tensor, int]:
    """Accumulate the gradient of the mean loss over all batches; return loss, targets.

    Batches are weighted by their targets: a mean of means would favor padded ones.
    """
    device = model.wte.weight.device
    counts = [int((y != IGNORE).sum()) for _, y in batches]
    loss = torch.zeros((), device=device)
    low = precision == "bfloat16"
    for (x, y), count in zip(batches, counts, strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            part = next_token_loss(model(x.to(device)), y.to(device))
            part = part * (count / sum(counts))
        part.backward()  # type: ignore[no-untyped-call]  # adds to the gradients so far
        loss += part.detach()
    return loss, sum(counts)


def train_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    step: int,
    config: TrainingConfig,
) -> tuple[Tensor, Tensor, int]:
    """Make step number `step`: set the rate, accumulate gradients, clip, update.

    Returns the loss before the step, the gradient norm before clipping, the number of
    targets. The first two stay tensors: nothing waits for a GPU until they are read.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    first = step * config.accumulate
    micro = [batches.batch(first + i) for i in range(config.accumulate)]
    optimizer.zero_grad(set_to_none=True)
    loss, n_targets = backward(model, micro, config.precision)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return loss, grad_norm, n_targets


@torch.no_grad()
def evaluate(
    model: GPT,
    batches: Batches,
    n_batches: int | None = None,
    *,
    first: int = 0,
    progress: bool = False,
) -> float:
    """Return the mean loss in nats per token: of an epoch, or n_batches from `first`.

    Each target counts once. In float32, whatever the precision of the training.
    """
    device, was_training = model.wte.weight.device, model.training
    model.eval()
    total, n_targets = 0.0, 0
    n = min(n_batches or batches.n_batches, batches.n_batches)
    steps = range(first, first + n)
    for step in tqdm(steps, "measuring", unit="batch", disable=not progress):
        x, y = batches.batch(step)
        count = int((y != IGNORE).sum())
        total += float(next_token_loss(model(x.to(device)), y.to(device))) * count
        n_targets += count
    model.train(was_training)
    return total / n_targets


def checkpoint_tensors(
    model: GPT, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Name all that a run changes: weights, optimizer state, random generators."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, p in model.named_parameters():
        for key, value in optimizer.state[p].items():  # step, exp_avg, exp_avg_sq
            tensors[f"optimizer.{name}.{key}"] = value
    tensors["rng.cpu"] = torch.get_rng_state()
    if model.wte.weight.is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def save_checkpoint(
    path: str | Path,
    model: GPT,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainingConfig,
) -> None:
    """Save the run after `step` steps, in one file: all of it, or nothing.

    Raises OSError if it cannot be written; the previous checkpoint is then untouched.
    """
    path = Path(path)
    parts = {"step": step, "model": asdict(model.config), "training": asdict(config)}
    header = {name: json.dumps(value) for name, value in parts.items()}
    with _explain_write_errors(path), atomic_file(path) as file:
        save_file(checkpoint_tensors(model, optimizer), file.name, header)


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    """Raise OSError with a cure where a checkpoint cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        cure = "start again: nothing was saved"
        if path.exists():
            cure = "resume: the previous checkpoint is intact"
        raise OSError(
            f"cannot write {path}: {error.__cause__ or error}. Free some space, or "
            f"check your permissions there, then {cure}."
        ) from error


def read_checkpoint(
    path: str | Path, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's header and the tensors whose names start with prefix.

    Raises FileNotFoundError, or ValueError for a file that is not a checkpoint.
    """
    with _open_checkpoint(path) as file:
        header = file.metadata() or {}
        names = [n for n in file.keys() if n.startswith(prefix)]  # noqa: SIM118
        tensors = {n: file.get_tensor(n).clone() for n in names}  # frees the file
    return _parse_header(path, header), tensors


@contextmanager
def _open_checkpoint(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file; FileNotFoundError, or ValueError for a damaged one."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}: train first, or name another folder."
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        why = shorten(str(error), 120)
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({why}): use another one."
        ) from error


def _parse_header(path: str | Path, header: dict[str, str]) -> dict[str, Any]:
    """Read the JSON in a checkpoint's header; ValueError if it is not a trainer's."""
    try:
        parts = {key: json.loads(header[key]) for key in ("step", "model", "training")}
    except (KeyError, json.JSONDecodeError):
        parts = {}
    match parts:
        case {"step": int(), "model": dict(), "training": dict()}:
            return parts
    raise ValueError(
        f"{path} is a safetensors file, but not a checkpoint of this trainer (header: "
        f"{shorten(str(header), 120)}): use a file that `train` has written."
    )


def _load_weights(path: str | Path, model: GPT, tensors: dict[str, Tensor]) -> None:
    """Copy a checkpoint's weights into the model, in place.

    Raises ValueError if one is missing, unknown, or of another shape or precision.
    """

    def described(weights: dict[str, Tensor], name: str) -> str:
        w = weights.get(name)
        return "missing" if w is None else f"{tuple(w.shape)} in {w.dtype}"

    own, names = model.state_dict(), [n for n in tensors if n.startswith("model.")]
    saved = {name.removeprefix("model."): tensors[name] for name in names}
    for name in own | saved:
        there, here = described(saved, name), described(own, name)
        if there != here:
            raise ValueError(
                f"{path} does not fit the model: {name} is {there} in the file and "
                f"{here} in the model. Build the model as that run did."
            )
    model.load_state_dict(saved)


def load_checkpoint(
    path: str | Path,
    model: GPT,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
) -> int:
    """Restore model, optimizer and generators, in place; return the number of steps.

    Raises ValueError if model or config differ from those of the checkpoint.
    """
    header, tensors = read_checkpoint(path)
    asked = asdict(model.config) | asdict(config)
    _check_same_run(path, header, asked, tensors)
    _load_weights(path, model, tensors)
    for name, p in model.named_parameters():
        keys = [key for key in tensors if key.startswith(f"optimizer.{name}.")]
        state = {key.rpartition(".")[2]: tensors[key].to(p.device) for key in keys}
        optimizer.state[p] = state  # step, exp_avg, exp_avg_sq
    torch.set_rng_state(tensors["rng.cpu"])
    if model.wte.weight.is_cuda and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return int(header["step"])


def _check_same_run(
    path: str | Path,
    header: dict[str, Any],
    asked: dict[str, Any],
    names: Iterable[str],
) -> None:
    """Raise ValueError for another configuration, or a file of weights only."""
    saved = header["model"] | header["training"]
    asked = json.loads(json.dumps(asked))  # as in JSON: lists, not tuples
    differ = [name for name in asked if saved.get(name) != asked[name]]
    if differ:
        both = ", ".join(f"{n} = {saved.get(n)} (not {asked[n]})" for n in differ)
        raise ValueError(
            f"{path} was saved with another configuration, {shorten(both, 300)}: "
            "resume with that one, or start a new run in another folder."
        )
    if "rng.cpu" not in names:
        raise ValueError(f"{path} holds weights only: use them to begin a new run.")


def load_model(folder: str | Path) -> GPT:
    """Load the model of a run folder, or of one checkpoint file, on the CPU.

    Raises what `read_checkpoint` and `_load_weights` raise.
    """
    path = Path(folder) / CHECKPOINT if Path(folder).is_dir() else Path(folder)
    header, tensors = read_checkpoint(path, "model.")
    model = _build_model(path, header)
    kinds = [w.dtype for w in tensors.values() if w.is_floating_point()]
    _load_weights(path, model.to(kinds[0] if kinds else None), tensors)
    return model.eval()


def _build_model(path: str | Path, header: dict[str, Any]) -> GPT:
    """Build the model that a header describes; ValueError if it describes none."""
    try:
        return GPT(GPTConfig(**header["model"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no GPT: {shorten(str(error), 120)}.") from error


def _open_run(
    model: GPT, batches: Batches, config: TrainingConfig, folder: Path, resume: bool
) -> tuple[Any, int]:
    """Prepare to train; return the optimizer and the number of steps already made.

    Raises ValueError for tokens outside the vocabulary, FileExistsError rather than
    overwrite a run. A new run is saved at once: a disk that is full or read-only is
    found now, not after an hour.
    """
    check_ids(batches.batch(0)[0].numpy(), model.config.n_vocab)
    path, optimizer = folder / CHECKPOINT, new_optimizer(model.train(), config)
    if config.compile:
        model.compile()
    start = 0
    if resume:
        start = load_checkpoint(path, model, optimizer, config)
    elif path.exists():
        raise FileExistsError(
            f"{folder} already holds a run: resume it, or use another folder."
        )
    else:
        save_checkpoint(path, model, optimizer, start, config)
    _open_metrics(folder / "metrics.csv", start)
    return optimizer, start


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read metrics.csv: numbers, None for an empty field; a cut-off row is skipped."""
    rows = [row for row in _read_rows(path) if None not in row.values()]
    numbers = [{k: float(v) if v else None for k, v in row.items()} for row in rows]
    return [row | {"step": int(row["step"] or 0)} for row in numbers]


def _read_rows(path: str | Path) -> list[dict[str, str]]:
    """Read a table as text, without the mark that spreadsheets put before it."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _open_metrics(path: Path, start: int) -> None:
    """Write the header of metrics.csv, and the rows up to step `start` if any.

    Later rows belong to steps that a kill has undone: they will be made again.
    """
    rows = read_metrics(path) if start and path.exists() else []
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["step"] <= start)


def _add_metrics(path: Path, row: dict[str, Any], bar: tqdm) -> None:
    """Append a row to metrics.csv, and show loss and speed on the progress bar."""
    with path.open("a", newline="") as file:
        csv.DictWriter(file, _COLUMNS, lineterminator="\n").writerow(row)
    bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_s=row["tokens_per_second"])


def _check_finite(step: int, **numbers: Tensor | float) -> None:
    """Raise FloatingPointError if a run has diverged, before it overwrites a file."""
    if all(math.isfinite(number) for number in numbers.values()):
        return
    found = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in numbers.items())
    raise FloatingPointError(
        f"{found} at step {step}: the run has diverged. Start again in another folder, "
        "with a lower learning_rate or a longer warm-up."
    )


def make_steps(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    config: TrainingConfig,
    steps: range,
    bar: tqdm,
    on_step: Callable[[int, Tensor, int], None],
) -> dict[str, Any]:
    """Make some steps and return a row of metrics.csv about the last.

    Here the CPU waits for the GPU. Raises FloatingPointError if the run has diverged.
    """
    n_tokens, clock = 0, perf_counter()
    for step in steps:
        loss, norm, n_targets = train_step(model, optimizer, batches, step, config)
        n_tokens += n_targets
        bar.update()
        on_step(step + 1, loss, n_targets)
    made, rate = steps.stop, learning_rate(steps[-1], config)
    _check_finite(made, loss=loss, gradient_norm=norm)
    speed = round(n_tokens / (perf_counter() - clock))
    values = (made, float(loss), float(norm), rate, speed)
    return dict(zip(_COLUMNS[:-1], values, strict=True))  # validation may follow


def _validate(
    model: GPT,
    batches: Batches,
    validation: Batches | None,
    step: int,
    config: TrainingConfig,
) -> float | None:
    """Return the validation loss after a step, None without validation text.

    Raises FloatingPointError if the step has ruined the weights: then the loss of its
    own batch is not finite either.
    """
    if validation is None:
        first = (step - 1) * config.accumulate
        _check_finite(step, loss_after_it=evaluate(model, batches, 1, first=first))
        return None
    loss = evaluate(model, validation, config.n_validation)
    _check_finite(step, validation_loss=loss)
    return loss


def train(
    model: GPT,
    batches: Batches,
    config: TrainingConfig,
    folder: str | Path,
    validation: Batches | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    until: int | None = None,
    on_step: Callable[[int, Tensor, int], None] = lambda step, loss, n_targets: None,
) -> None:
    """Train to step `until` (or n_steps), with checkpoints and metrics.csv in folder.

    Raises what `_open_run`, `make_steps`, `_validate` and `save_checkpoint` raise.
    """
    folder, last = Path(folder), until or config.n_steps
    optimizer, start = _open_run(model, batches, config, folder, resume)
    every = (config.log_every, config.save_every)
    with tqdm(total=last, initial=start, unit="step", disable=not progress) as bar:
        while start < last:
            end = min(last, *(start + n - start % n for n in every))
            steps = range(start, end)
            row = make_steps(model, optimizer, batches, config, steps, bar, on_step)
            saving = end % config.save_every == 0 or end == last
            if saving:
                bar.set_postfix_str("measuring the validation loss")
                row["validation"] = _validate(model, batches, validation, end, config)
            _add_metrics(folder / "metrics.csv", row, bar)
            if saving:
                save_checkpoint(folder / CHECKPOINT, model, optimizer, end, config)
            start = end
