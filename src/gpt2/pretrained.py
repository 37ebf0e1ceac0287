"""The published weights: OpenAI's GPT-2 in our model, and its protocols. Chapter 11."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from gpt2.decoder import GPT, SIZES, GPTConfig
from gpt2.generation import GREEDY, choose, new_cache, next_logits
from gpt2.language_model import bits_per_byte, perplexity
from gpt2.prompting import GAP
from gpt2.tokenizer import Tokenizer, atomic_file

# Where each size is published: a repository of the Hugging Face hub.
PUBLISHED = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}


def turned(name: str, weight: Tensor) -> Tensor:
    """Transpose Conv1D weights; return everything else unchanged.

    (in, out) -> (out, in), and back. Source: `conv1d` in src/model.py.
    """
    is_conv1d = name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight"))
    return weight.t() if is_conv1d else weight


def published_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the stored shape of each tensor of a published file."""
    with torch.device("meta"), _Undrawn():  # shapes without numbers
        model = GPT(config)
    return {name: tuple(turned(name, p).shape) for name, p in model.named_parameters()}


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """Map our name of each weight to its name in a file.

    Some files add the prefix `transformer.`. Mask buffers are not weights, and the head
    is `wte` again: both are left out. Raises ValueError for a name that appears twice.
    """
    buffer = re.compile(r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight")
    ours: dict[str, str] = {}
    for name in names:
        short = name.removeprefix("transformer.")
        if short in ours:
            raise ValueError(f"{short} appears twice, with a prefix and without.")
        if not buffer.fullmatch(short):
            ours[short] = name
    return ours


def check_shapes(
    found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    """Raise ValueError that names a tensor that is missing, extra or misshapen."""
    for name in expected | found:
        there, here = found.get(name, "missing"), expected.get(name, "missing")
        if there != here:
            raise ValueError(
                f"not a GPT-2 of this size: {name} is {there} in the file and {here} "
                "in the model. Take another file, or the config.json of this one."
            )


def load(source: str | Path, dtype: torch.dtype = torch.float32) -> GPT:
    """Read a GPT-2 in the published layout: a name of PUBLISHED, a folder or a file.

    Tensors are copied one at a time out of a memory map, so no second copy of the model
    is held. It is on the CPU, in evaluation mode. Raises FileNotFoundError or
    ValueError, with advice, if the file is missing, damaged or not a GPT-2.
    """
    path = _find_weights(source)
    with _opened(path) as file:
        stored = stored_names(file.keys())
        found = {our: tuple(file.get_slice(n).get_shape()) for our, n in stored.items()}
        config = _read_config(path, found)
        check_shapes(found, published_shapes(config))
        with torch.device("meta"), _Undrawn():
            model = GPT(config).to(dtype)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                weight = _read_tensor(file, stored[name])
                parameter.copy_(turned(name, weight))  # converts as it copies
        _check_head(file, model)
    return model.eval()


def find_cached(name: str) -> Path | None:
    """Return the path of a published size's weights, or None if they are not here."""
    copy = _home() / name / _FILE
    if copy.is_file():
        return copy
    if not find_spec("huggingface_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        PUBLISHED[name], _FILE, revision=_REVISION.get(name, "main")
    )
    return Path(found) if isinstance(found, str) else None


def fetch(name: str, folder: str | Path | None = None) -> tuple[Path, str]:
    """Return the file of a published size, and a description of what was verified.

    It is downloaded if it is not here, or copied from a folder (or file). Raises
    FileNotFoundError, ValueError or OSError, with advice.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name!r} is not published: take {', '.join(PUBLISHED)}.")
    if folder is None:
        path = find_cached(name) or _download(name)
    else:
        path = _copy(name, _find_weights(folder))
    return path, _verify(name, path)


def published_facts() -> dict[str, Any]:
    """Read outputs of the real 124M for five prompts, with their sources."""
    text = files("gpt2").joinpath("published.json").read_text("utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def save(model: GPT, folder: str | Path) -> None:
    """Write model.safetensors and config.json in the published layout: both or neither.

    `load` reads the same numbers back, and so does the `transformers` library. Raises
    OSError, with advice, if they cannot be written.
    """
    folder, size = Path(folder), model.config
    weights = {
        name: turned(name, p.detach()).cpu().contiguous()
        for name, p in model.named_parameters()
    }
    config = _FIXED | {
        "vocab_size": size.n_vocab,
        "n_positions": size.n_ctx,
        "n_embd": size.n_embd,
        "n_head": size.n_head,
        "n_layer": size.n_layer,
        "bos_token_id": size.n_vocab - 1,  # end-of-text has the last id
        "eos_token_id": size.n_vocab - 1,
    }
    with (
        _writing(folder / "model.safetensors") as file,
        atomic_file(folder / "config.json", "w") as text,
    ):
        save_file(weights, file.name, {"format": "pt"})
        _sync(file.name)  # on the disk before either name appears
        json.dump(config, text, indent=1)


def windows(n: int, n_ctx: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Plan how n targets are scored, each once: (start, end, n_scored).

    Target i is id i + 1. A window reads the ids from start to end, predicts the id
    after each, and scores its last n_scored predictions: all in the first window, at
    most `stride` in the others. Raises ValueError for a stride that would skip targets.
    """
    if not 1 <= stride <= n_ctx:
        raise ValueError(f"stride = {stride}: take 1 to {n_ctx}, the context.")
    done = 0
    while done < n:
        end = min(n, done + (stride if done else n_ctx))
        yield max(0, end - n_ctx), end, end - done
        done = end


@torch.inference_mode()
def sliding_losses(
    model: GPT,
    ids: Sequence[int],
    stride: int,
    n_ctx: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Return -ln p of every id but the first, by sliding windows, in nats: (N - 1,).

    N ids have N - 1 targets. n_ctx shortens the model's context. Raises what `windows`
    and the model raise.
    """
    n_ctx = n_ctx or model.config.n_ctx
    text, head = torch.tensor(ids).to(model.wte.weight.device), model.wte.weight
    losses = []
    with tqdm(total=len(ids) - 1, unit="token", disable=not progress) as bar:
        for plan in _batches(windows(len(ids) - 1, n_ctx, stride), n_ctx):
            n = plan[0][2]
            x = torch.stack([text[start:end] for start, end, _ in plan])  # (B, T)
            y = torch.stack([text[end - n + 1 : end + 1] for _, end, _ in plan])
            logits = F.linear(model.hidden(x)[:, -n:], head)  # (B, n, n_vocab)
            flat = logits.flatten(0, 1).float()
            losses.append(F.cross_entropy(flat, y.flatten(), reduction="none"))
            bar.update(y.numel())
    return torch.cat(losses)


@dataclass(frozen=True)
class TextScore:
    """The loss of a whole text, in nats, and the units to divide it by."""

    nats: float
    n_tokens: int
    n_words: int
    n_characters: int
    n_bytes: int

    def perplexity(self, per: str = "token") -> float:
        """Return exp of the loss per token, word, character or byte."""
        n = vars(self)[f"n_{per}s"]
        return perplexity(self.nats / n)

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats, self.n_bytes)

    @property
    def bits_per_character(self) -> float:
        return bits_per_byte(self.nats, self.n_characters)


def score_text(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    stride: int,
    *,
    original: str | None = None,
    n_ctx: int | None = None,
    progress: bool = False,
) -> TextScore:
    """Score a text after an end-of-text; count its words, characters and bytes.

    If the text was de-tokenized, pass the tokenized text as `original`: its units are
    counted. Raises ValueError for an empty text.
    """
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError("an empty text has no score: give some text.")
    losses = sliding_losses(
        model, [tokenizer.end_of_text, *ids], stride, n_ctx, progress
    )
    units = text if original is None else original
    n_bytes, n_words = len(units.encode()), len(units.split())
    total = float(losses.double().sum())
    return TextScore(total, len(ids), n_words, len(units), n_bytes)


# Find and replace to join WikiText's tokens, find and replace to separate them again.
WIKITEXT = [
    (r" @([-,.])@ ", r"\1", r"(?<=[\w>])(-|(?<=\d)[,.](?=\d))(?=[\w<])",
     r" @\1@ "),
    (r" ([,;:!?%])(?=\s)", r"\1", r"(?<=\S)([,;:!?%])(?=\s)", r" \1"),
    (r" \.(?=\s)", r".", r"(?<=[^\s.])(?<!\b[A-Z])(?<!\b(?:No|St|Dr|Mr|Ms|Jr|Sr|Mt|vs))"
     r"(?<!Mrs)\.(?=\s)", r" ."),
    (r" ('s|'t|'re|'ve|'m|'ll|'d|')(?=\s)", r"\1",
     r"(?<=[\w>])('s|'t|'re|'ve|'m|'ll|'d|')(?=\s)", r" \1"),
    (r"([(\[]) ", r"\1", r"([(\[])(?=\S)", r"\1 "),
    (r" ([)\]])", r"\1", r"(?<=\S)([)\]])", r" \1"),
    (r'" ([^"\n]*?) "', r'"\1"', r'"(\S[^"\n]*?)"', r'" \1 "'),
]  # fmt: skip


def detokenize(text: str) -> str:
    """Join the tokens of WikiText into the text that people write."""
    for find, replace, _, _ in WIKITEXT:
        text = re.sub(find, replace, text)
    return text


def retokenize(text: str) -> str:
    """Separate a text into the tokens of WikiText again: invert `detokenize`."""
    for _, _, find, replace in reversed(WIKITEXT):
        text = re.sub(find, replace, text)
    return text


@dataclass(frozen=True)
class Continuation:
    """Loss and greedy match for each token of a given ending."""

    nats: tuple[float, ...]  # -ln p of each token
    first: tuple[bool, ...]  # was it the likeliest?


def encode_pair(tokenizer: Tokenizer, start: str, end: str) -> tuple[list[int], int]:
    """Encode two texts as one; return the ids, and how many of them are the ending.

    A space between them belongs to the ending. An empty start is an end-of-text.
    """
    ids = tokenizer.encode(start + end)
    n_start = len(tokenizer.encode(start.rstrip()))
    if n_start == 0:
        return [tokenizer.end_of_text, *ids], len(ids)
    return ids, len(ids) - n_start


@torch.inference_mode()
def score_continuations(
    model: GPT,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    progress: bool = False,
) -> list[Continuation]:
    """Score each ending after its start; what does not fit is cut from the left.

    Texts of similar length are batched; no scored position attends to the padding.
    """
    head, longest = model.wte.weight, model.config.n_ctx + 1
    rows = [encode_pair(tokenizer, start, end) for start, end in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    found: dict[int, Continuation] = {}
    for batch in tqdm([order[i : i + 8] for i in range(0, len(order), 8)],
                      unit="batch", disable=not progress):  # fmt: skip
        texts = [torch.tensor(rows[i][0][-longest:]) for i in batch]
        x = torch.nn.utils.rnn.pad_sequence([t[:-1] for t in texts], batch_first=True)
        hidden = model.hidden(x.to(head.device))  # (B, T, C)
        for i, text, states in zip(batch, texts, hidden, strict=True):
            n = min(rows[i][1], len(text) - 1)
            y = text[-n:].to(head.device)
            logits = F.linear(states[len(text) - 1 - n : len(text) - 1], head).float()
            nats = F.cross_entropy(logits, y, reduction="none").tolist()
            first = (logits.argmax(dim=-1) == y).tolist()
            found[i] = Continuation(tuple(nats), tuple(first))
    return [found[i] for i in range(len(rows))]


def split_last_word(text: str) -> tuple[str, str]:
    """Split a passage before its last space; the space goes with the word."""
    start, space, word = text.rstrip().rpartition(" ")
    return start, space + word


def last_word_scores(ends: Sequence[Continuation]) -> dict[str, float]:
    """Return two accuracies of LAMBADA, and the perplexity per last word.

    Raises ValueError if there are no endings.
    """
    if not ends:
        raise ValueError("no passages: a mean over none is not defined.")
    n = len(ends)
    return {
        "last token": sum(end.first[-1] for end in ends) / n,
        "last word": sum(all(end.first) for end in ends) / n,
        "perplexity": perplexity(sum(sum(end.nats) for end in ends) / n),
    }


# Function words, which rarely end a passage of LAMBADA.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about above after again against all am an and any are as at be because been
        before being below between both but by can could did do does doing down during
        each few for from further had has have having he her here hers herself him
        himself his how i if in into is it its itself just me more most my myself no
        nor not now of off on once only or other our ours ourselves out over own same
        she should so some such than that the their theirs them themselves then there
        these they this those through to too under until up very was we were what when
        where which while who whom why will with would you your yours yourself""",
    )
)


@torch.inference_mode()
def guess_words(
    model: GPT, tokenizer: Tokenizer, start: str, n: int = 8, n_pieces: int = 8
) -> list[str]:
    """Return likely next words, each with its space, the likeliest first.

    Each of the n likeliest tokens is continued greedily to a word of up to n_pieces.
    """
    ids = tokenizer.encode(start)[-(model.config.n_ctx - n_pieces) :]
    cache, rows = new_cache(model), torch.tensor([ids], device=model.wte.weight.device)
    logits = next_logits(model, rows, cache)  # (1, n_vocab)
    p, new = logits[0].log_softmax(dim=-1).topk(min(n, logits.size(-1)))  # (n,) each
    for layer in cache:  # the start is computed once, and copied for each word
        layer.k, layer.v = (
            past[:, :, : len(ids) + n_pieces].repeat(len(new), 1, 1, 1)
            for past in (layer.k, layer.v)
        )
    words, going = [[i] for i in new.tolist()], [True] * len(new)
    for _ in range(n_pieces - 1):
        scores = next_logits(model, new[:, None], cache).log_softmax(dim=-1)
        new = choose(scores, GREEDY)  # (n,)
        for row, token in enumerate(new.tolist()):
            ends = re.match(r'[\s.,;:!?")]|<\|endoftext', tokenizer.decode([token]))
            going[row] &= not ends
            if going[row]:
                words[row].append(token)
                p[row] += scores[row, token]
        if not any(going):
            break
    order = p.argsort(descending=True, stable=True).tolist()
    texts = [tokenizer.decode(words[i]) for i in order]
    return [text for text in texts if re.match(r" \w", text)]


def guess_word(
    model: GPT, tokenizer: Tokenizer, start: str, refused: frozenset[str] = STOP_WORDS
) -> str:
    """Return the likeliest next word that is not refused, without its space.

    Source: the stop-word filter of Radford et al. 2019, section 3.3.
    """
    words = [word.strip() for word in guess_words(model, tokenizer, start)]
    return next((word for word in words if word.lower() not in refused), "")


def choose_filled(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    candidates: Sequence[str],
    scoring: str = "full",
) -> str:
    """Return the candidate that scores highest in the gap of a text.

    "full": the candidate and what follows (CBT's way); "partial": what follows it;
    "word": the candidate alone; "mean": as full, per token. Raises ValueError for any
    other scoring, and for a text without a gap or without anything to score.
    """
    before, gap, after = text.partition(GAP)
    if scoring not in ("full", "partial", "word", "mean"):
        raise ValueError(f"scoring {scoring!r}: take full, partial, word or mean.")
    if not gap or (scoring == "partial" and not after.strip()):
        raise ValueError(f"{text!r:.60} needs a gap {GAP}, and text after it.")
    pairs = {
        "partial": [(before + word, after) for word in candidates],
        "word": [(before, word) for word in candidates],
    }.get(scoring, [(before, word + after) for word in candidates])
    ends = score_continuations(model, tokenizer, pairs)
    n = [len(end.nats) if scoring == "mean" else 1 for end in ends]
    losses = [sum(end.nats) / k for end, k in zip(ends, n, strict=True)]
    return candidates[losses.index(min(losses))]


# --- Files: where they are, and what can be wrong with them -------------------

_SHA256 = {  # of the file; of the other sizes the hub states it
    "124M": "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
}
_REVISION = {"124M": "607a30d783dfa663caf39e06633721c8d4cfcd7e"}
_FIXED = {  # what every GPT-2 has, in the words of config.json
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_FILE = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt")


def _find_weights(source: str | Path) -> Path:
    """Return the file that a name, a folder or a path means; fetch a name's if needed.

    Raises FileNotFoundError or ValueError, with advice.
    """
    if str(source) in PUBLISHED:
        return fetch(str(source))[0]
    path = Path(source) / _FILE if Path(source).is_dir() else Path(source)
    if path.is_file():
        return path
    if not path.parent.is_dir() or path.name != _FILE:
        names = ", ".join(PUBLISHED)
        raise FileNotFoundError(f"there is no {source}: name {names}, or a folder.")
    if (path.parent / f"{_FILE}.index.json").exists():
        raise FileNotFoundError(
            f"{path.parent} has its weights in several files: in `transformers`, save "
            "the model again with a larger max_shard_size."
        )
    if pickles := [name for name in _PICKLES if (path.parent / name).exists()]:
        raise FileNotFoundError(
            f"{path.parent} has no {_FILE}, and {pickles[0]} is a pickle, which can "
            "run arbitrary code: take the safetensors file of this model."
        )
    raise FileNotFoundError(f"{path.parent} has no {_FILE}: name another folder.")


def _verify(name: str, path: Path) -> str:
    """Compare a file with the published one; return a description of what was compared.

    A file that has not changed since is not read again. Raises ValueError if it
    differs.
    """
    blob = path.resolve().name  # the hub's cache names a file by its sha256
    stated = blob if re.fullmatch("[0-9a-f]{64}", blob) else ""
    expected = _SHA256.get(name, stated)
    stat, stamp = path.stat(), _home() / name / "verified.json"
    if not expected:
        with _opened(path) as file:
            shapes = {
                our: tuple(file.get_slice(n).get_shape())
                for our, n in stored_names(file.keys()).items()
            }
        check_shapes(shapes, published_shapes(SIZES[name]))
        return "shapes right; sha256 not checked: none is known for this file"
    mark = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, expected]
    if not (stamp.is_file() and json.loads(stamp.read_text("utf-8")) == mark):
        with open(path, "rb") as file:
            digest = _digest(file)
        if digest != expected:
            raise ValueError(
                f"{path} is not the published {name}: its sha256 is {digest[:12]}..., "
                f"not {expected[:12]}... Delete it and fetch it again."
            )
        with atomic_file(stamp, "w") as text:
            json.dump(mark, text)
    whose = "the one known here" if name in _SHA256 else "the one that the hub states"
    return f"sha256 is {whose}"


class _Undrawn(TorchFunctionMode):
    """Skip the random draw: on the meta device it costs PyTorch a second of imports."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return None if func is torch.nn.init.normal_ else func(*args, **kwargs)


def _home() -> Path:
    """Return where copies and marks are kept: $GPT2_WEIGHTS, or the user's cache."""
    named = os.environ.get("GPT2_WEIGHTS")
    return Path(named) if named else Path.home() / ".cache" / "gpt2-course"


def _copy(name: str, source: Path) -> Path:
    """Copy a file that is the published one to where `find_cached` looks."""
    _verify(name, source)
    copy = _home() / name / _FILE
    with open(source, "rb") as file, _writing(copy) as target:
        shutil.copyfileobj(file, target, 2**24)
    return copy


def _download(name: str) -> Path:
    """Download a published size into the hub's own cache; resume a stopped download.

    Raises ModuleNotFoundError or OSError, with advice.
    """
    if not find_spec("huggingface_hub"):
        raise ModuleNotFoundError("to download: `pip install huggingface_hub`.")
    from huggingface_hub import hf_hub_download

    revision = _REVISION.get(name, "main")
    try:
        return Path(hf_hub_download(PUBLISHED[name], _FILE, revision=revision))
    except Exception as error:
        why = shorten(str(error) or type(error).__name__, 160)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(
                f"the disk is too full for {name}: make room, or let HF_HOME name a "
                "folder on another disk."
            ) from error
        raise OSError(
            f"the weights of {name} are not here and cannot be fetched ({why}). With a "
            f"network, `course weights {name}` fetches them; HF_ENDPOINT names a "
            "mirror, HF_HUB_OFFLINE must not be 1. Without, copy model.safetensors "
            f"from a machine that has it: `course weights {name} --from FOLDER`."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raise ValueError, with advice, if that fails."""
    with open(path, "rb") as raw:
        head = raw.read(9)  # of ours, the length of the header, and its first brace
    if head[8:] != b"{" and (head[:1] == b"\x80" or head[:4] == b"PK\3\4"):
        raise ValueError(
            f"{path} is a pickle, whatever its name: it could run arbitrary code, so "
            "it is not read. Take the safetensors file of this model."
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged, or not a safetensors file ({shorten(str(error), 120)}"
            "): delete it and fetch it again."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_tensor(file: Any, name: str) -> Tensor:
    """Read one tensor. Raises ValueError unless it is of floating point."""
    weight: Tensor = file.get_tensor(name)
    if not weight.is_floating_point():
        raise ValueError(f"{name} is {weight.dtype}: take a file in float32.")
    return weight


def _read_config(path: Path, shapes: dict[str, tuple[int, ...]]) -> GPTConfig:
    """Read config.json beside the weights; without one, recognize the four sizes.

    It is compared with the file before a model of that size is built. Raises ValueError
    for another architecture, or for an unknown size.
    """
    if not {"wte.weight", "wpe.weight"} <= shapes.keys():
        names = shorten(", ".join(shapes) or "no tensors", 80)
        raise ValueError(f"this is not a GPT-2: it holds {names}. Take a GPT-2.")
    n_layer = sum(name.endswith("ln_1.weight") for name in shapes)
    beside = path.parent / "config.json"
    if beside.is_file():
        config = _parse_config(beside)
        said: dict[str, tuple[int, ...]] = {
            "wte.weight": (config.n_vocab, config.n_embd),
            "wpe.weight": (config.n_ctx, config.n_embd),
        }
        check_shapes({name: shapes[name] for name in said}, said)
        if config.n_layer != n_layer:
            raise ValueError(
                f"config.json has {config.n_layer} layers, and the file has {n_layer}: "
                "take the config.json that belongs to it."
            )
        return config
    for config in SIZES.values():
        expected = published_shapes(config)
        if n_layer == config.n_layer and shapes["wte.weight"] == expected["wte.weight"]:
            return config
    raise ValueError(
        "there is no config.json beside it, which gives the number of heads; only the "
        "four published sizes are known without one."
    )


def _parse_config(path: Path) -> GPTConfig:
    """Read a config.json. Raises ValueError if our model does not compute this."""
    try:
        said = json.loads(path.read_text("utf-8"))
        names = ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")
        config = GPTConfig(*(int(said[name]) for name in names))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = f"{path.name} is not a GPT-2's ({error}): take the model's own."
        raise ValueError(reason) from error
    if min(vars(config).values()) < 1 or config.n_embd % config.n_head:
        raise ValueError(f"{path.name} has {config}, which no model can have.")
    inner = said.get("n_inner")
    for name, value in (_FIXED | {"n_inner": inner and 4 * config.n_embd}).items():
        if name != "architectures" and said.get(name, value) != value:
            raise ValueError(
                f"{path.name} sets {name} to {said[name]!r}, and our model computes "
                f"{value!r}: take a GPT-2."
            )
    return config


def _check_head(file: Any, model: GPT) -> None:
    """Raise ValueError if a file holds a head that differs from `wte`: ours is tied."""
    if "lm_head.weight" in file.keys():  # noqa: SIM118
        head = file.get_tensor("lm_head.weight").to(model.wte.weight.dtype)
        if not torch.equal(head, model.wte.weight):
            raise ValueError("its head differs from its wte; a GPT-2 ties them.")


@contextmanager
def _writing(path: Path) -> Iterator[Any]:
    """Write a file of weights completely or not at all; raise OSError with advice."""
    try:
        with atomic_file(path) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write {path}: {error.__cause__ or error}. Make room, or check "
            "that you may write there; nothing was kept."
        ) from error


def _sync(path: str) -> None:
    """Flush to the disk a file that `save_file` has written by name."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _digest(file: Any) -> str:
    """Return the sha256 of an open file, read in pieces."""
    digest = sha256()
    while piece := file.read(2**24):
        digest.update(piece)
    return digest.hexdigest()


def _batches(
    plan: Iterable[tuple[int, int, int]], n_ctx: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Batch windows of the same shape, about 2,048 positions at a time."""
    for _, group in groupby(plan, lambda window: (window[1] - window[0], window[2])):
        alike, n = list(group), max(1, 2048 // n_ctx)
        yield from (alike[i : i + n] for i in range(0, len(alike), n))
