"""The published layout against `transformers`, its bad files, and the protocols of Table 3."""

import errno
import hashlib
import importlib.util
import json
import math
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import our_layout, our_name, randomize, reference_model, relative_error
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, GPT2LMHeadModel

from course import doctor
from course.__main__ import main as course
from gpt2 import pretrained, runs
from gpt2.__main__ import main
from gpt2.decoder import GPT, SIZES, GPTConfig
from gpt2.generation import generate
from gpt2.pretrained import (
    PUBLISHED,
    STOP_WORDS,
    Continuation,
    TextScore,
    choose_filled,
    detokenize,
    encode_pair,
    fetch,
    find_cached,
    guess_word,
    guess_words,
    last_word_scores,
    load,
    published_facts,
    published_shapes,
    retokenize,
    save,
    score_continuations,
    score_text,
    sliding_losses,
    split_last_word,
    windows,
)
from gpt2.tokenizer import Tokenizer
from gpt2.training import load_model

TOLERANCE = 1e-5
SMALL = GPTConfig(n_vocab=101, n_ctx=33, n_embd=32, n_head=4, n_layer=12)  # h.10 sorts before h.2
DATA = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = find_cached("124M")  # of the machine, before the tests get a place of their own

needs_weights = pytest.mark.skipif(
    WEIGHTS is None, reason="needs the published weights (`course weights 124M`)"
)
needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason='needs lm-eval: pip install -c constraints.txt -e ".[evaluation]"',
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty machine: no weights, no copies, no hub."""
    monkeypatch.setenv("GPT2_WEIGHTS", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def checkpoint(config: GPTConfig, folder: Path, seed: int = 0) -> GPT2LMHeadModel:
    """Let the library write a random checkpoint, and return its model."""
    theirs = reference_model(config)
    randomize(theirs, seed)
    theirs.save_pretrained(folder)
    return theirs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the library's small checkpoint on disk, and its model."""
    folder = tmp_path_factory.mktemp("written")
    return folder, checkpoint(SMALL, folder)


def rewrite(folder: Path, to: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """Copy a checkpoint with its tensors changed."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    to.mkdir(exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, to / "model.safetensors")
    shutil.copy(folder / "config.json", to)
    return to


# --- Loading: logits and gradients of the library's model ----------------------------------------


def check_equal(ours: GPT, theirs: GPT2LMHeadModel, length: int = 20) -> None:
    """Logits, and the gradient of every weight, are the library's."""
    n_vocab = theirs.config.vocab_size
    idx = torch.randint(n_vocab, (2, length), generator=torch.Generator().manual_seed(1))
    for model in (ours, theirs):
        model.zero_grad()
    logits, expected = ours(idx), theirs(idx).logits
    assert relative_error(logits.detach(), expected.detach()) < TOLERANCE, "logits differ"
    for scores in (logits, expected):
        F.cross_entropy(scores[:, :-1].flatten(0, 1), idx[:, 1:].flatten()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, p in theirs.named_parameters():
        error = relative_error(gradients[our_name(name)], our_layout(name, p.grad))
        assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


def test_loads_what_the_library_writes(written):
    folder, theirs = written
    check_equal(load(folder), theirs)
    check_equal(load(folder / "model.safetensors"), theirs)


def test_a_random_124M_has_the_librarys_logits_and_gradients(tmp_path):
    theirs = checkpoint(SIZES["124M"], tmp_path)
    (tmp_path / "config.json").unlink()  # the shapes say that it is 124M
    check_equal(load(tmp_path), theirs, length=6)


def without_prefix(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)


def with_buffers(tensors):
    """Add the masks that the published files hold."""
    mask = torch.ones(33, 33).tril()[None, None]
    for layer in range(12):
        tensors[f"transformer.h.{layer}.attn.bias"] = mask.clone()
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def with_head(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


def as_published(tensors):
    with_buffers(tensors)
    without_prefix(tensors)


@pytest.mark.parametrize("change", [without_prefix, with_buffers, with_head, as_published])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_every_layout_and_both_precisions(written, tmp_path, change, stored):
    folder, _ = written

    def change_and_round(tensors):
        change(tensors)
        for name, t in tensors.items():
            tensors[name] = t.to(stored)

    rewrite(folder, tmp_path, change_and_round)
    theirs = GPT2LMHeadModel.from_pretrained(folder)
    for p in theirs.parameters():
        p.data = p.data.to(stored).float()
    check_equal(load(tmp_path), theirs)
    rounded = dict(load(tmp_path, torch.bfloat16).named_parameters())
    for name, p in theirs.named_parameters():
        ours = rounded[our_name(name)]
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, our_layout(name, p).to(torch.bfloat16)), name


@pytest.mark.parametrize("size", PUBLISHED)
def test_names_and_shapes_of_the_four_sizes_are_the_librarys(size):
    with torch.device("meta"):
        theirs = reference_model(SIZES[size])
    expected = {our_name(name): tuple(p.shape) for name, p in theirs.named_parameters()}
    assert published_shapes(SIZES[size]) == expected


def damaged(damage: Callable[[GPT], None]) -> Callable[[Path], GPT]:
    """Make a loader that has one thing wrong."""

    def wrong(folder: Path) -> GPT:
        model = load(folder)
        with torch.no_grad():
            damage(model)
        return model

    return wrong


def square_c_proj_untransposed(model):
    for block in model.h:
        block.attn.c_proj.weight.copy_(block.attn.c_proj.weight.t().clone())


def q_and_k_swapped(model):
    for block in model.h:
        for part in (block.attn.c_attn.weight, block.attn.c_attn.bias):
            q, k, v = part.chunk(3)
            part.copy_(torch.cat([k, q, v]))


def heads_interleaved(model):
    """Take the rows as (head, q k v, dim), as other models store them."""
    for block in model.h:
        rows = block.attn.c_attn.weight
        rows.copy_(rows.view(4, 3, 8, 32).transpose(0, 1).reshape(96, 32).clone())


def ln_f_forgotten(model):
    nn.init.ones_(model.ln_f.weight)
    nn.init.zeros_(model.ln_f.bias)


def wpe_forgotten(model):
    nn.init.normal_(model.wpe.weight, std=0.01)


def buffers_taken_for_weights(model):
    """The mask, attn.bias, goes where attn.c_attn.bias belongs."""
    for block in model.h:
        block.attn.c_attn.bias.copy_(torch.ones(96))


def layers_in_the_order_of_their_names(model):
    order = sorted(range(12), key=str)  # 0, 1, 10, 11, 2, ...
    states = [block.state_dict() for block in model.h]
    copies = [{name: t.clone() for name, t in states[i].items()} for i in order]
    for block, state in zip(model.h, copies, strict=True):
        block.load_state_dict(state)


def viewed_and_not_transposed(model):
    for block in model.h:
        weight = block.mlp.c_fc.weight  # (4 C, C)
        weight.copy_(weight.t().reshape(weight.shape).clone())


WRONG = [
    square_c_proj_untransposed,
    q_and_k_swapped,
    heads_interleaved,
    ln_f_forgotten,
    wpe_forgotten,
    buffers_taken_for_weights,
    layers_in_the_order_of_their_names,
    viewed_and_not_transposed,
]


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_a_wrong_loader_is_caught(written, damage):
    folder, theirs = written
    with pytest.raises(AssertionError, match="differ"):
        check_equal(damaged(damage)(folder), theirs)


def test_a_head_that_is_not_tied_is_refused(written, tmp_path):
    """The ninth wrong loader: it would drop the head in silence."""
    rewrite(written[0], tmp_path, with_head)
    load(tmp_path)

    def untie(tensors):
        with_head(tensors)
        tensors["lm_head.weight"][3, 5] += 1

    rewrite(written[0], tmp_path, untie)
    with pytest.raises(ValueError, match="its head differs from its wte"):
        load(tmp_path)


MEASURE = """
import sys
import psutil
from gpt2 import pretrained

def look(*arguments):
    memory = psutil.Process().memory_info()
    seen.append(memory.rss - memory.shared)  # mapped files aside
    return read(*arguments)

small, large, copies = sys.argv[1:]
read, seen, kept = pretrained._read_tensor, [], []
pretrained.load(small)  # what the first load imports is here
pretrained._read_tensor = look
if copies == "True":
    pretrained._read_tensor = lambda *a: kept.append(look(*a).clone()) or kept[-1]
model = pretrained.load(large)
read = print
look()
print(max(seen) - seen[0])
"""


def held_while_loading(small: Path, large: Path, copies: bool) -> int:
    """Return by how many bytes a fresh process grows; its loader may keep copies."""
    command = [sys.executable, "-c", MEASURE, str(small), str(large), str(copies)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which counts mapped files apart")
def test_loading_holds_no_second_copy(written, tmp_path):
    model = GPT(GPTConfig(n_vocab=1000, n_ctx=64, n_embd=768, n_head=12, n_layer=4))
    size = sum(4 * p.numel() for p in model.parameters())  # 117 MB
    save(model, tmp_path)
    assert 0.9 * size < held_while_loading(written[0], tmp_path, copies=False) < 1.2 * size
    assert 1.8 * size < held_while_loading(written[0], tmp_path, copies=True)


# --- The way back --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_is_bit_equal(tmp_path, dtype):
    model = GPT(SMALL)
    randomize(model, 3)
    save(model.to(dtype), tmp_path)
    again = load(tmp_path, dtype)
    assert again.config == SMALL and not again.training
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b) and b.dtype == dtype, name


def test_the_library_loads_what_is_saved(tmp_path):
    model = GPT(SMALL)
    randomize(model, 4)
    save(model, tmp_path)
    theirs, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check_equal(model, theirs.eval())


def test_a_header_of_any_length_is_read(written, tmp_path):
    """In one of 32 lengths the first byte is that of a pickle, 0x80."""
    tensors = load_file(written[0] / "model.safetensors")
    shutil.copy(written[0] / "config.json", tmp_path)
    file = tmp_path / "model.safetensors"
    for n in range(0, 256, 8):
        save_file(tensors, file, {"note": "x" * n})
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80
    check_equal(load(tmp_path), written[1])


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_half_of_a_model(tmp_path, monkeypatch):
    save(GPT(SMALL), tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    monkeypatch.setattr(pretrained, "save_file", full_disk)
    for name in ("old", "new"):
        with pytest.raises(OSError, match=r"cannot write .*Make room"):
            save(GPT(SMALL), tmp_path / name)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    assert list((tmp_path / "new").iterdir()) == []


def test_weights_that_do_not_reach_the_disk_leave_no_config(tmp_path, monkeypatch):
    """Some file systems say so only when a file is synchronized."""

    def fsync(number):
        if os.fstat(number).st_size > 10_000:
            full_disk()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"cannot write .*Make room"):
        save(GPT(SMALL), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Bad files: a line with a cure each ----------------------------------------------------------


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1000])


def cut_in_its_header(file):
    file.write_bytes(file.read_bytes()[:100])


def empty(file):
    file.write_bytes(b"")


def header_of_2_GB(file):
    file.write_bytes(struct.pack("<Q", 2**31) + file.read_bytes()[8:])


def header_is_no_json(file):
    data = file.read_bytes()
    file.write_bytes(data[:8] + b"[" + data[9:])


def a_pickle(file):
    file.write_bytes(pickle.dumps({"wte.weight": [1.0]}))


def a_torch_pickle(file):
    torch.save({"wte.weight": torch.ones(2, 2)}, file)


def a_web_page(file):
    file.write_text("<!DOCTYPE html><html>404: not found</html>")


def changed(change):
    def rewrite_in_place(file):
        tensors = load_file(file)
        change(tensors)
        save_file({name: t.contiguous() for name, t in tensors.items()}, file)

    return rewrite_in_place


def configured(**settings):
    def rewrite_config(file):
        path = file.with_name("config.json")
        said = json.loads(path.read_text()) | settings
        path.write_text(json.dumps({k: v for k, v in said.items() if v != "gone"}))

    return rewrite_config


def another_architecture(file):
    torch.manual_seed(0)
    tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=8, vocab_size=11)  # fmt: skip
    BertModel(tiny).save_pretrained(file.parent)


PREFIX = "transformer."
BAD = {
    "cut short": (cut_short, "is damaged, or not a safetensors file .* fetch it again"),
    "cut in its header": (cut_in_its_header, "is damaged, or not a safetensors"),
    "empty": (empty, "is damaged, or not a safetensors"),
    "header of 2 GB": (header_of_2_GB, "is damaged, or not a safetensors"),
    "header is no JSON": (header_is_no_json, "is damaged, or not a safetensors"),
    "a web page": (a_web_page, "is damaged, or not a safetensors"),
    "a pickle": (a_pickle, "is a pickle, whatever its name"),
    "a zipped pickle": (a_torch_pickle, "is a pickle, whatever its name"),
    "another architecture": (another_architecture, r"this is not a GPT-2: it holds .*embeddings"),
    "a tensor is missing": (
        changed(lambda t: t.pop(PREFIX + "h.7.ln_2.bias")),
        r"h\.7\.ln_2\.bias is missing in the file and \(32,\) in the model",
    ),
    "a layer too many": (
        changed(lambda t: t.update({PREFIX + "h.12.ln_1.bias": torch.ones(32)})),
        r"h\.12\.ln_1\.bias is \(32,\) in the file and missing in the model",
    ),
    "already transposed": (
        changed(lambda t: t.update(
            {PREFIX + "h.0.mlp.c_fc.weight": t[PREFIX + "h.0.mlp.c_fc.weight"].t()})),
        r"h\.0\.mlp\.c_fc\.weight is \(128, 32\) in the file and \(32, 128\)",
    ),
    "a name twice": (
        changed(lambda t: t.update({"wpe.weight": t[PREFIX + "wpe.weight"].clone()})),
        r"wpe\.weight appears twice",
    ),
    "whole numbers": (
        changed(lambda t: t.update({PREFIX + "ln_f.bias": torch.ones(32, dtype=torch.int8)})),
        r"ln_f\.bias is torch\.int8",
    ),
    "another activation": (
        configured(activation_function="gelu"),
        r"sets activation_function to 'gelu', and our model computes 'gelu_new'",
    ),
    "another epsilon": (configured(layer_norm_epsilon=1e-6), "sets layer_norm_epsilon to 1e-06"),
    "another width inside": (configured(n_inner=64), "sets n_inner to 64"),
    "no heads in its config": (configured(n_head="gone"), r"is not a GPT-2's \('n_head'"),
    "heads that do not divide": (configured(n_head=5), "which no model can have"),
    "an endless width in its config": (
        configured(n_embd=math.inf), r"is not a GPT-2's \(cannot convert float infinity"),
    "a nested config": (
        lambda file: file.with_name("config.json").write_text("[" * 100_000),
        r"is not a GPT-2's \(maximum recursion depth"),
    "a vocabulary without bound": (
        configured(vocab_size=10**30), r"wte\.weight is \(101, 32\) .* and \(10{30}, 32\) in"),
    "more layers than in the file": (
        configured(n_layer=1000), "config.json has 1000 layers, and the file has 12"),
    "a context of another length": (
        configured(n_positions=64), r"wpe\.weight is \(33, 32\) in the file and \(64, 32\)"),
    "no config, unknown size": (
        lambda file: file.with_name("config.json").unlink(), "there is no config.json beside it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_a_cure(written, tmp_path, name):
    spoil, message = BAD[name]
    folder = tmp_path / "model"
    shutil.copytree(written[0], folder)
    spoil(folder / "model.safetensors")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert str(folder / "model.safetensors") in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin"], r"pytorch_model\.bin is a pickle, which can run arbitrary code"),
        (["model.safetensors.index.json"], "has its weights in several files"),
        (["config.json"], r"has no model\.safetensors: name another folder"),
    ],
)
def test_a_folder_without_the_file(tmp_path, files, message):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=message):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="name 124M, 355M, 774M, 1558M, or a folder"):
        load(tmp_path / "nowhere")


def test_no_pickle_is_ever_opened(written, tmp_path, monkeypatch):
    """Reading one would call what is in it."""

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    shutil.copy(written[0] / "config.json", tmp_path)
    with pytest.raises(ValueError, match="is a pickle"):
        load(tmp_path)
    assert not (tmp_path / "it ran").exists()


# --- Fetching ------------------------------------------------------------------------------------


def test_without_a_network_the_cure_is_named(home):
    with pytest.raises(OSError, match=r"(?s)cannot be fetched.*course weights 355M --from FOLDER"):
        load("355M")
    assert not home.exists()


@pytest.mark.parametrize(("offline", "asked"), [(True, []), (False, ["huggingface.co"])])
def test_offline_mode_asks_no_server(monkeypatch, offline, asked):
    hosts = []

    def look_up(host, *args, **kwargs):
        hosts.append(host)
        raise RuntimeError("no test needs the network")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(OSError, match="cannot be fetched"):
        load("355M")
    assert hosts == asked


def test_another_file_is_not_the_published_one(written, home):
    with pytest.raises(ValueError, match=r"not the published 124M: its sha256 is .* not 248dfc39"):
        fetch("124M", written[0])
    assert not home.exists() and find_cached("124M") is None


@pytest.fixture
def small_124M(written, monkeypatch):
    """Let the small checkpoint be what is published as 124M."""
    digest = pretrained._digest((written[0] / "model.safetensors").open("rb"))
    monkeypatch.setitem(pretrained._SHA256, "124M", digest)
    monkeypatch.setitem(SIZES, "124M", SMALL)
    return written[0]


def test_a_copy_is_taken_from_a_folder_and_loaded_by_name(small_124M, written, home):
    copy, _ = fetch("124M", small_124M)
    assert copy == home / "124M" / "model.safetensors" == find_cached("124M")
    shutil.copy(small_124M / "config.json", copy.parent)
    check_equal(load("124M"), written[1])


def test_a_file_that_has_changed_is_read_again(small_124M, home, monkeypatch):
    copy, _ = fetch("124M", small_124M)
    read = []
    digest = pretrained._digest
    monkeypatch.setattr(pretrained, "_digest", lambda file: read.append(1) or digest(file))
    fetch("124M")
    assert read == []  # it is known
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="Delete it and fetch it again"):
        fetch("124M")
    assert read == [1]


def test_a_full_disk_while_copying_leaves_nothing(small_124M, home, monkeypatch):
    monkeypatch.setattr(shutil, "copyfileobj", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*Make room"):
        fetch("124M", small_124M)
    assert [path for path in home.rglob("*") if path.is_file() and "tmp" in path.name] == []
    assert find_cached("124M") is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "the disk is too full for 774M: .*HF_HOME"),
        (ConnectionError("no route"), r"cannot be fetched \(no route\).*HF_ENDPOINT"),
        (RuntimeError("500 Server Error"), r"cannot be fetched \(500 Server Error\)"),
    ],
)
def test_a_failed_download_says_what_to_do(home, monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(OSError, match=message):
        fetch("774M")
    assert not home.exists()


def test_what_is_downloaded_is_checked_against_the_hub(written, tmp_path, monkeypatch, home):
    """The hub's cache names a file by its sha256; with a cut file the name is wrong."""
    data = (written[0] / "model.safetensors").read_bytes()
    monkeypatch.setitem(SIZES, "355M", SMALL)
    blob = tmp_path / "hub" / pretrained._digest((written[0] / "model.safetensors").open("rb"))
    blob.parent.mkdir()
    blob.write_bytes(data)
    assert pretrained._verify("355M", blob) == "sha256 is the one that the hub states"
    blob.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="not the published 355M"):
        pretrained._verify("355M", blob)
    said = pretrained._verify("355M", written[0] / "model.safetensors")
    assert said.startswith("shapes right; sha256 not checked")
    with pytest.raises(ValueError, match="not a GPT-2 of this size"):
        pretrained._verify("774M", written[0] / "model.safetensors")


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="'125M' is not published: take 124M, 355M"):
        fetch("125M")


# --- The real weights, where they are ------------------------------------------------------------


def test_the_facts_are_those_of_five_prompts():
    facts = published_facts()
    assert sum(len(prompt["top"]) for prompt in facts["prompts"]) == 50
    assert facts["weights"]["sha256"] == pretrained._SHA256["124M"]
    assert facts["weights"]["name"] == PUBLISHED["124M"]
    assert facts["weights"]["revision"] == pretrained._REVISION["124M"]
    tokenizer = Tokenizer.gpt2()
    for prompt in facts["prompts"]:
        assert tokenizer.encode(prompt["prompt"]) == prompt["ids"]


@needs_weights
def test_the_real_weights_give_the_published_logits():
    """The other side is rounded, and another project's: 1e-2."""
    model, facts = load(WEIGHTS), published_facts()
    for prompt in facts["prompts"]:
        logits = model(torch.tensor([prompt["ids"]]))[0, -1]
        ids, expected = zip(*((row[0], row[2]) for row in prompt["top"]), strict=True)
        assert logits.topk(10).indices.tolist() == list(ids)
        assert (logits[list(ids)] - torch.tensor(expected)).abs().max() < 1e-2


# --- Perplexity: windows and units ---------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    model = GPT(GPTConfig(n_vocab=300, n_ctx=16, n_embd=32, n_head=2, n_layer=2))
    randomize(model, 5)
    with torch.no_grad():
        model.wte.weight.mul_(20)  # louder than chance
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    text = "The cat sat on the mat. A dog saw the cat, and the cat saw the dog on the mat. " * 3
    return Tokenizer.train([text], 43)  # at most 300 tokens


@pytest.mark.parametrize(
    ("n", "n_ctx", "stride", "expected"),
    [
        (10, 4, 4, [(0, 4, 4), (4, 8, 4), (6, 10, 2)]),  # the last one reaches back
        (10, 4, 3, [(0, 4, 4), (3, 7, 3), (6, 10, 3)]),
        (6, 4, 1, [(0, 4, 4), (1, 5, 1), (2, 6, 1)]),
        (3, 4, 2, [(0, 3, 3)]),
        (0, 4, 2, []),
    ],
)
def test_windows_by_hand(n, n_ctx, stride, expected):
    assert list(windows(n, n_ctx, stride)) == expected


@given(n=st.integers(0, 200), n_ctx=st.integers(1, 40), data=st.data())
@settings(max_examples=60)
def test_every_target_is_scored_once_with_the_context_that_is_promised(n, n_ctx, data):
    stride = data.draw(st.integers(1, n_ctx))
    scored = []
    for start, end, k in windows(n, n_ctx, stride):
        assert end - start <= n_ctx and 1 <= k <= end - start
        for target in range(end - k, end):  # ids[target + 1] from ids[start ... target]
            assert target - start >= min(target, n_ctx - stride)
        scored += range(end - k, end)
    assert scored == list(range(n))


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_that_leaves_a_gap_is_refused(model, stride):
    with pytest.raises(ValueError, match=f"stride = {stride}: take 1 to 4"):
        list(windows(10, 4, stride))


@torch.no_grad()
def naive_losses(model: GPT, ids: list[int], stride: int, n_ctx: int) -> list[float]:
    """Predict one id after the other from the very ids that it may see."""
    losses = []
    for target in range(1, len(ids)):
        late = max(0, target - n_ctx)  # targets behind the first window
        end = n_ctx + -(-late // stride) * stride if late else n_ctx
        start = max(0, min(end, len(ids) - 1) - n_ctx)
        logits = model(torch.tensor([ids[start:target]]))[0, -1]
        losses.append(-float(logits.log_softmax(-1)[ids[target]]))
    return losses


@pytest.mark.parametrize(("stride", "n_ctx"), [(16, 16), (5, 16), (1, 16), (3, 7), (7, 7)])
def test_sliding_losses_are_those_of_a_plain_loop(model, stride, n_ctx):
    ids = torch.randint(300, (61,), generator=torch.Generator().manual_seed(2)).tolist()
    losses = sliding_losses(model, ids, stride, n_ctx)
    expected = torch.tensor(naive_losses(model, ids, stride, n_ctx))
    assert losses.shape == (60,) and relative_error(losses, expected) < TOLERANCE


def test_units_by_hand():
    """A model that knows nothing: ln 300 nats for each token."""
    blind = GPT(GPTConfig(n_vocab=300, n_ctx=16, n_embd=8, n_head=1, n_layer=1))
    nn.init.zeros_(blind.wte.weight)
    letters = Tokenizer.train([], 43)  # 257 tokens: ids stay below 300
    score = score_text(blind, letters, "두 마리 cats", stride=8)
    assert (score.n_tokens, score.n_words, score.n_characters, score.n_bytes) == (15, 3, 9, 15)
    assert score.nats == pytest.approx(15 * math.log(300), rel=1e-6)
    assert score.perplexity() == pytest.approx(300, rel=1e-5)
    assert score.perplexity("word") == pytest.approx(300**5, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(math.log2(300), rel=1e-6)
    assert score.bits_per_character == pytest.approx(15 / 9 * math.log2(300), rel=1e-6)
    units = score_text(blind, letters, "I can't", stride=8, original="I can 't")
    assert (units.n_tokens, units.n_words, units.n_bytes) == (7, 3, 8)
    with pytest.raises(ValueError, match="an empty text has no score"):
        score_text(blind, letters, "", stride=8)


@pytest.mark.parametrize("n_ctx", [None, 5])
def test_a_text_is_scored_with_the_context_that_is_given(model, tokenizer, n_ctx):
    text = "A dog saw the cat, and the cat saw the dog."
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    losses = sliding_losses(model, ids, 3, n_ctx)
    score = score_text(model, tokenizer, text, 3, n_ctx=n_ctx)
    assert score.nats == pytest.approx(float(losses.sum()), rel=1e-6) and len(losses) > 5


def test_a_score_is_frozen_numbers():
    score = TextScore(nats=10 * math.log(2), n_tokens=5, n_words=2, n_characters=10, n_bytes=20)
    assert score.perplexity() == pytest.approx(4) and score.perplexity("word") == pytest.approx(32)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert score.bits_per_character == pytest.approx(1)


CUT = {
    " Robert is an English film , television and theatre actor . \n":
        " Robert is an English film, television and theatre actor. \n",
    " a guest @-@ starring role on 1 @,@ 000 days ( 2 @.@ 5 years ) . \n":
        " a guest-starring role on 1,000 days (2.5 years). \n",
    ' episode " Teddy \'s Story " of the series , he didn \'t know : why ? \n':
        ' episode "Teddy\'s Story" of the series, he didn\'t know: why? \n',
    ' he sang " La la . " \n': ' he sang "La la." \n',  # the order of the patterns matters
    " = Robert <unk> = \n": " = Robert <unk> = \n",
}  # fmt: skip


@pytest.mark.parametrize(("words", "plain"), CUT.items())
def test_words_of_wikitext_are_joined_and_cut_again(words, plain):
    assert detokenize(words) == plain
    assert retokenize(plain) == words


needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")


def digest_of(name: str) -> str:
    return hashlib.sha256((DATA / name).read_bytes()).hexdigest()[:12]


@needs_data
def test_what_the_chapter_says_of_wikitext_is_so():
    lines = (DATA / "wikitext2" / "test.txt").read_text("utf-8").splitlines(keepends=True)
    n_words = len("".join(lines).split())
    assert (n_words, n_words + len(lines)) == (241_211, 245_569)
    lines = [line for line in lines if line.strip() and not line.startswith(" = ")]
    back = sum(retokenize(detokenize(line)) == line for line in lines) / len(lines)
    assert len(lines) == 2183 and round(100 * back) == 96
    assert digest_of("wikitext2/test.txt") == "d790b833ef8c"


@needs_data
def test_what_the_chapter_says_of_lambada_is_so():
    lines = (DATA / "lambada" / "lambada_test.jsonl").read_text("utf-8").splitlines()
    words = [split_last_word(json.loads(line)["text"])[1].strip() for line in lines]
    assert len(words) == 5153 and sum(word.lower() in STOP_WORDS for word in words) == 47
    assert digest_of("lambada/lambada_test.jsonl") == "4aa8d02cd17c"


# --- Last words ----------------------------------------------------------------------------------


def test_a_pair_is_encoded_as_one_text(tokenizer):
    ids, n = encode_pair(tokenizer, "The cat", " sat")
    assert ids == tokenizer.encode("The cat sat") and tokenizer.decode(ids[-n:]) == " sat"
    assert encode_pair(tokenizer, "The cat ", "sat") == (ids, n)  # the space is the end's
    the = tokenizer.encode("The")
    assert encode_pair(tokenizer, "", "The") == ([tokenizer.end_of_text, *the], len(the))


def test_continuations_are_those_of_a_plain_loop(model, tokenizer):
    """Also where texts are longer than the context, and in whatever order they come."""
    text = "The cat sat on the mat. A dog saw the cat, and the cat saw the dog."
    pairs = [(text[:i], text[i:j]) for i, j in ((30, 33), (7, 11), (3, 9), (0, 7), (50, 67))]
    pairs += pairs[::-1]
    for (start, end), found in zip(pairs, score_continuations(model, tokenizer, pairs),
                                   strict=True):  # fmt: skip
        ids, n = encode_pair(tokenizer, start, end)
        ids = ids[-17:]
        with torch.no_grad():
            p = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)[-n:]
        nats = [-float(row[i]) for row, i in zip(p, ids[-n:], strict=True)]
        assert relative_error(torch.tensor(found.nats), torch.tensor(nats)) < TOLERANCE
        assert found.first == tuple(int(r.argmax()) == i for r, i in zip(p, ids[-n:], strict=True))


def test_last_words_by_hand():
    assert split_last_word("I don't care about signs") == ("I don't care about", " signs")
    ends = [
        Continuation((0.5, 0.5), (True, True)),
        Continuation((2.0, 0.0), (False, True)),  # the last token right, the word wrong
        Continuation((1.0,), (True,)),
        Continuation((4.0,), (False,)),
    ]
    scores = last_word_scores(ends)
    assert scores["last token"] == 0.75 and scores["last word"] == 0.5
    assert scores["perplexity"] == pytest.approx(math.exp(2))
    with pytest.raises(ValueError, match="no passages"):
        last_word_scores([])


def test_words_are_guessed_by_hand(model, monkeypatch):
    """After `x` come: " the" 0.4; " sig" 0.35, then "ns" 0.9 or " " ; " cat" 0.2."""
    tokens = ["x", " the", " sig", "ns", " cat", ".", "s"]
    table = {
        "x": {" the": 0.4, " sig": 0.35, " cat": 0.2},
        " the": {" cat": 0.9},
        " sig": {"ns": 0.9},
        "ns": {".": 0.6, "s": 0.4},
        " cat": {"s": 0.55, ".": 0.45},
        "s": {".": 1.0},
        ".": {"x": 1.0},
    }

    class Spelled:
        end_of_text = 0

        def encode(self, text):
            return [tokens.index(text)]

        def decode(self, ids):
            return "".join(tokens[i] for i in ids)

    calls = []

    def next_logits(model, rows, cache):
        calls.append(len(rows))
        p = torch.full((len(rows), len(tokens)), 1e-9)
        for row, ids in zip(p, rows, strict=True):
            for token, chance in table[tokens[ids[-1]]].items():
                row[tokens.index(token)] = chance
        return p.log()

    monkeypatch.setattr(pretrained, "next_logits", next_logits)
    words = guess_words(model, Spelled(), "x", n=3)
    assert words == [" the", " signs", " cats"]  # 0.4, 0.35 * 0.9 = 0.315, 0.2 * 0.55 = 0.11
    assert calls == [1, 3, 3]  # no step after the last word has ended
    assert guess_word(model, Spelled(), "x", refused=frozenset()) == "the"
    assert guess_word(model, Spelled(), "x") == "signs"
    assert guess_word(model, Spelled(), "x", STOP_WORDS | {"signs", "cats"}) == ""


@torch.no_grad()
def test_words_are_guessed_as_without_a_cache(tokenizer_and_model):
    tokenizer, model = tokenizer_and_model
    start = "A dog saw the"
    words = guess_words(model, tokenizer, start, n=60, n_pieces=3)
    ids, found = tokenizer.encode(start), {}
    p = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
    for token in p.topk(60).indices.tolist():
        row, nats = [*ids, token], float(p[token])
        for _ in range(2):
            after = model(torch.tensor([row]))[0, -1].log_softmax(-1)
            piece = tokenizer.decode([int(after.argmax())])
            if piece[:1] in set(" .,\n") or piece == "<|endoftext|>":
                break
            row, nats = [*row, int(after.argmax())], nats + float(after.max())
        found[tokenizer.decode(row[len(ids) :])] = nats
    expected = sorted(found, key=found.get, reverse=True)
    assert words == [word for word in expected if word[:1] == " " and word[1:2].isalnum()]
    assert words


# --- The evaluation library, on the same weights and texts ----------------------------------------

ARTICLE = (  # longer than the context
    "Robert Boulter is an English film, television and theatre actor. He had a guest-starring role "
    "on the television series The Bill in 2000. This was followed by a starring role in a play, "
    "which was performed in 2001 at the Royal Court Theatre; he had a guest role in another series "
    'in 2002, and in 2004 he landed a role as "Craig" in the episode "Teddy\'s Story".'
)

LM_EVAL = {
    "acc": 0.4166666666666667,
    "perplexity": 29011.431939483668,
    "word_perplexity": 1304450.5183297182,
    "byte_perplexity": 13.845841601448718,
    "bits_per_byte": 3.7913808435965195,
}


@pytest.fixture(scope="module")
def in_english(tmp_path_factory):
    """A small model with GPT-2's vocabulary, in a folder as the hub has them."""
    folder = tmp_path_factory.mktemp("english")
    model = GPT(GPTConfig(n_ctx=48, n_embd=24, n_head=2, n_layer=2))
    randomize(model, 7)
    with torch.no_grad():
        model.wte.weight.mul_(10)
    save(model, folder)
    tokenizer = Tokenizer.gpt2()
    tokenizer.save(folder)
    (folder / "encoder.json").rename(folder / "vocab.json")
    (folder / "vocab.bpe").rename(folder / "merges.txt")
    return folder, load(folder), tokenizer


@torch.no_grad()
def passages(in_english) -> list[str]:
    """Beginnings of the article; after some of them the model's own likeliest word."""
    _, model, tokenizer = in_english
    words, found = ARTICLE.split(), []
    for n in range(4, 40):
        start = " ".join(words[:n])
        best = int(model(torch.tensor([tokenizer.encode(start)[-48:]]))[0, -1].argmax())
        word = tokenizer.decode([best])
        found.append(start + word if re.fullmatch(" [a-zA-Z]+", word) else start)
    return found


def scores_here(in_english):
    """Return what lm-eval's tasks lambada_openai and wikitext report, by our functions."""
    _, model, tokenizer = in_english
    pairs = [split_last_word(passage) for passage in passages(in_english)]
    words = last_word_scores(score_continuations(model, tokenizer, pairs))
    article = score_text(model, tokenizer, ARTICLE, stride=48)
    return {
        "acc": words["last word"],
        "perplexity": words["perplexity"],
        "word_perplexity": article.perplexity("word"),
        "byte_perplexity": article.perplexity("byte"),
        "bits_per_byte": article.bits_per_byte,
    }


def lm_eval_scores(in_english, place: Path) -> dict[str, float]:
    """Run lm-eval's two tasks, as its files say, on local data."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    def counted(doc, results):
        page = doc["page"]
        n_words, n_bytes = len(re.split(r"\s+", page)), len(page.encode())
        names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
        return dict(zip(names, [(results[0], n) for n in (n_words, n_bytes, n_bytes)], strict=True))

    def task(name: str, rows: list[dict[str, str]], metrics: list[str], **how) -> dict[str, object]:
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"data_files": {"test": str(place / f"{name}.jsonl")}}
        return {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test",
                "metric_list": [{"metric": metric} for metric in metrics], **how}  # fmt: skip

    tasks = [
        task("lambada", [{"text": text} for text in passages(in_english)], list(LM_EVAL)[:2],
             output_type="loglikelihood", doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
             doc_to_target="{{' '+text.split(' ')[-1]}}"),
        task("wikitext", [{"page": ARTICLE}], list(LM_EVAL)[2:],
             output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{page}}",
             process_results=counted),
    ]  # fmt: skip
    model = HFLM(pretrained=str(in_english[0]), backend="causal", device="cpu", dtype="float32",
                 batch_size=2)  # fmt: skip
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0)["results"]
    named = found["lambada"] | found["wikitext"]
    return {name.removesuffix(",none"): value for name, value in named.items()
            if name.removesuffix(",none") in LM_EVAL}  # fmt: skip


def test_scores_are_those_that_lm_eval_gave(in_english):
    """Version 0.4.13, run once on these weights and texts."""
    assert scores_here(in_english) == pytest.approx(LM_EVAL, rel=TOLERANCE)


@needs_lm_eval
def test_scores_are_those_that_lm_eval_gives(in_english, tmp_path):
    assert lm_eval_scores(in_english, tmp_path) == pytest.approx(
        scores_here(in_english), rel=TOLERANCE
    )


# --- Choosing ------------------------------------------------------------------------------------


CHOICES = {  # nats of: the word, and of what follows it
    "rare": ((6.0,), (1.0, 1.0)),  # full 8, partial 2, mean 8 / 3
    "usual": ((1.0,), (3.0, 3.0)),  # full 7, partial 6, mean 7 / 3
    "long": ((2.0, 2.0, 1.5), (1.0, 1.5)),  # full 8, partial 2.5, mean 8 / 5
}


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [("full", "usual"), ("partial", "rare"), ("word", "usual"), ("mean", "long")],
)
def test_choices_by_hand(model, tokenizer, monkeypatch, scoring, expected):
    def score(model, tokenizer, pairs):
        found = []
        for start, end in pairs:
            word = next(name for name in CHOICES if name in start + end)
            first, rest = CHOICES[word]
            nats = (first if word in end else ()) + (rest if "fits" in end else ())
            found.append(Continuation(nats, (True,) * len(nats)))
        return found

    monkeypatch.setattr(pretrained, "score_continuations", score)
    assert choose_filled(model, tokenizer, "A ___ fits.", list(CHOICES), scoring) == expected


@pytest.mark.parametrize("scoring", ["full", "partial", "word", "mean"])
def test_choices_are_those_of_a_plain_loop(model, tokenizer, scoring):
    text, words = "A dog saw the ___ sat", ["cat", "mat.", "dog on"]
    losses = []
    for word in words:
        before, whole = "A dog saw the ", f"A dog saw the {word} sat"
        start = before + word if scoring == "partial" else before
        end = whole if scoring != "word" else before + word
        ids, n = tokenizer.encode(end), len(tokenizer.encode(start.rstrip()))
        with torch.no_grad():
            p = model(torch.tensor([ids]))[0, :-1].log_softmax(-1)
        nats = -p.gather(1, torch.tensor(ids[1:])[:, None])[n - 1 :, 0]
        losses.append(float(nats.mean() if scoring == "mean" else nats.sum()))
    expected = words[losses.index(min(losses))]
    assert choose_filled(model, tokenizer, text, words, scoring) == expected


@pytest.mark.parametrize(
    ("text", "scoring", "message"),
    [
        ("no gap", "full", "needs a gap ___"),
        ("nothing behind the ___", "partial", "and text after it"),
        ("a ___ in it", "best", "scoring 'best': take full, partial, word or mean"),
    ],
)
def test_a_choice_that_cannot_be_scored_is_refused(model, tokenizer, text, scoring, message):
    with pytest.raises(ValueError, match=message):
        choose_filled(model, tokenizer, text, ["cat", "dog"], scoring)


# --- The command line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer_and_model):
    """A folder in the published layout with its tokenizer, and texts to measure it on."""
    folder = tmp_path_factory.mktemp("place")
    tokenizer, model = tokenizer_and_model
    save(model, folder / "model")
    tokenizer.save(folder / "model")
    (folder / "text.txt").write_text(TEXT * 9, encoding="utf-8")
    (folder / "words.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ENDINGS), encoding="utf-8"
    )
    items = [{"text": "A dog saw the ___ sat", "candidates": ["cat", "mat"], "answer": "cat"}] * 3
    (folder / "gaps.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    return folder


TEXT = "The cat sat on the mat. A dog saw the cat, and the cat saw the dog on the mat. "
ENDINGS = ["The cat sat on the mat", "A dog saw the cat", "and the cat saw the dog"]


@pytest.fixture(scope="module")
def tokenizer_and_model():
    tokenizer = Tokenizer.train([TEXT * 3], 43)
    model = GPT(GPTConfig(tokenizer.n_vocab, n_ctx=24, n_embd=16, n_head=2, n_layer=2))
    randomize(model, 6)
    return tokenizer, model.eval()


def said_by(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused_by(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_evaluate_prints_what_the_functions_say(place, tokenizer_and_model, capsys):
    tokenizer, model = tokenizer_and_model
    told = ["evaluate", place / "model", "--on"]
    score = score_text(model, tokenizer, TEXT * 9, 12)
    said = said_by(capsys, *told, place / "text.txt")
    assert f"{score.perplexity():.2f} a token, {score.perplexity('word'):.2f} a word" in said
    assert f"context 24, stride 12; {score.n_tokens:,} tokens, {score.n_words} words" in said
    said = said_by(capsys, *told, place / "text.txt", "--stride", 1, "--context", 8)
    narrow = score_text(model, tokenizer, TEXT * 9, 1, n_ctx=8)
    assert f"{narrow.bits_per_byte:.4f} bits a byte" in said and "context 8, stride 1" in said

    pairs = [split_last_word(text) for text in ENDINGS]
    scores = last_word_scores(score_continuations(model, tokenizer, pairs))
    said = said_by(capsys, *told, place / "words.jsonl", "--protocol", "lambada")
    assert f"last token {scores['last token']:.4f}, last word {scores['last word']:.4f}" in said
    right = [guess_word(model, tokenizer, start) == word.strip() for start, word in pairs]
    said = said_by(capsys, *told, place / "words.jsonl", "--protocol", "lambada-filter")
    assert f"no stop word {sum(right) / 3:.4f}; 3 passages" in said
    said = said_by(capsys, *told, place / "gaps.jsonl", "--protocol", "choice")
    for scoring in ("full", "partial", "word", "mean"):
        text = "A dog saw the ___ sat"
        right = choose_filled(model, tokenizer, text, ["cat", "mat"], scoring) == "cat"
        assert f"{scoring} {float(right):.4f}" in said


def test_evaluate_joins_the_words_of_wikitext(place, tokenizer_and_model, capsys, tmp_path):
    tokenizer, model = tokenizer_and_model
    cut = "The cat , the dog and the mat . \n"
    (tmp_path / "cut.txt").write_text(cut)
    score = score_text(model, tokenizer, detokenize(cut), 12, original=cut)
    assert score.n_words == 9 and score.n_tokens < len(tokenizer.encode(cut))
    said = said_by(capsys, "evaluate", place / "model", "--on", tmp_path / "cut.txt",
                   "--protocol", "wikitext")  # fmt: skip
    assert f"{score.perplexity('word'):.2f} a word" in said and "9 words" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "text.txt", "--stride", "99"], "--stride 99: take 24, the context, at most"),
        (["--on", "text.txt", "--stride", "0"], "--stride 0: take 1 or more"),
        (["--on", "nowhere.txt"], "nowhere.txt"),
        (["--on", "text.txt", "--protocol", "lambada"],
         'text.txt, line 1: write {"text": ...}, as --protocol lambada asks'),
        (["--on", "words.jsonl", "--protocol", "choice"],
         'words.jsonl, line 1: write {"text": ..., "candidates": ..., "answer": ...}'),
        (["--on", "model/model.safetensors"], "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_evaluate_names_what_is_wrong(place, capsys, monkeypatch, options, message):
    monkeypatch.chdir(place)
    assert message in refused_by(capsys, "evaluate", "model", *options)


def test_generate_writes_with_a_published_folder(place, tokenizer_and_model, capsys):
    tokenizer, model = tokenizer_and_model
    ids = [tokenizer.end_of_text, *tokenizer.encode("The cat")]
    expected = tokenizer.decode(generate(model, ids, 8, stop=tokenizer.end_of_text))
    for name in ("model", "model/model.safetensors"):
        said = said_by(capsys, "generate", place / name, "--prompt", "The cat", "--tokens", 8,
                       "--temperature", 0)  # fmt: skip
        assert said == f"The cat{expected}\n"
    said = refused_by(capsys, "generate", "1558M", "--prompt", "The cat")
    assert "`course weights 1558M --from FOLDER`" in said


def test_train_begins_with_a_published_folder(place, tokenizer_and_model, capsys, tmp_path):
    """The first loss is the model's own, memory and time are told, and a run resumes."""
    tokenizer, model = tokenizer_and_model
    out = tmp_path / "further"
    told = ["train", place / "text.txt", "--out", out, "--from", place / "model"]
    assert main([str(a) for a in [*told, "--context", 12, "--steps", 4, "--lr", 1e-9]]) == 0
    said = capsys.readouterr()
    assert "GB of memory" in said.err and "4 steps take about 0." in said.err
    made = load_model(out)
    assert made.config == model.config  # all 24 positions, in windows of 12
    for (name, a), b in zip(model.named_parameters(), made.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    assert Tokenizer.load(out).vocab == tokenizer.vocab
    resume = ["train", "--out", out, "--resume", "--steps", 6]
    assert main([str(argument) for argument in resume]) == 0
    assert "GB of memory" not in capsys.readouterr().err
    settings = json.loads((out / "run.json").read_text())
    assert (settings["from"], settings["positions"], settings["batch"]) == (
        str(place / "model"), 24, 4)  # fmt: skip
    again = ["train", place / "text.txt", "--out", tmp_path / "more", "--from", out]
    assert main([str(a) for a in [*again, "--context", 8, "--steps", 2]]) == 0  # a run, too


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "32"], "brings its own width: leave --width away"),
        (["--tokenizer", "gpt2"], "brings its own tokenizer: leave --tokenizer away"),
        (["--context", "25"], "--context 25: --from {} sees 24 tokens at most"),
        ([], "--context 256: --from {} sees 24 tokens at most"),
    ],
)
def test_train_from_takes_no_other_shape(place, capsys, tmp_path, options, message):
    told = ["train", place / "text.txt", "--out", tmp_path / "x", "--from", place / "model"]
    assert message.format(place / "model") in refused_by(capsys, *told, *options)
    assert not (tmp_path / "x").exists()


def test_a_published_size_is_checked_before_it_is_read(
    place, capsys, tmp_path, small_124M, monkeypatch
):
    """It may be larger than the memory, and it must be here before a run is made."""
    told = ["train", place / "text.txt", "--out", tmp_path / "x", "--from", "124M"]
    assert "cannot be fetched" in refused_by(capsys, *told)
    fetch("124M", small_124M)
    monkeypatch.setattr(runs, "SIZES", SIZES | {"124M": SMALL})
    monkeypatch.setattr(runs, "load", lambda source: pytest.fail("it was read"))
    monkeypatch.setattr(runs.psutil, "virtual_memory", lambda: SimpleNamespace(total=10**5))
    said = refused_by(capsys, *told, "--context", 12)
    assert "--from 124M: 1,761,792 parameters take" in said and not (tmp_path / "x").exists()


def test_train_from_asks_for_its_own_tokens_and_enough_memory(place, capsys, tmp_path, monkeypatch):
    tokens = ["tokenize", place / "text.txt", "--out", tmp_path / "tokens", "--merges", 5]
    assert main([str(argument) for argument in tokens]) == 0
    told = ["train", tmp_path / "tokens", "--out", tmp_path / "x", "--from", place / "model"]
    said = refused_by(capsys, *told, "--context", 12)
    assert "these tokens are not those of --from" in said and not (tmp_path / "x").exists()
    monkeypatch.setattr(runs.psutil, "virtual_memory", lambda: SimpleNamespace(total=10**5))
    told[1] = place / "text.txt"
    assert "GB are here; take a smaller one" in refused_by(capsys, *told, "--context", 12)


def test_course_weights_takes_a_copy_and_says_what_it_checked(small_124M, home, capsys):
    assert course(["weights", "124M", "--from", str(small_124M)]) == 0
    said = capsys.readouterr().out
    assert str(home / "124M" / "model.safetensors") in said
    assert "sha256 is the one known here" in said
    assert course(["weights", "124M"]) == 0  # it is here now


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["774M"], "cannot be fetched"),
        (["125M"], "'125M' is not published"),
        (["124M", "--from", "nowhere"], "there is no nowhere"),
    ],
)
def test_course_weights_says_what_to_do(capsys, arguments, message):
    assert course(["weights", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_doctor_says_what_is_here_and_what_the_next_size_needs(small_124M):
    [first] = doctor.weights()
    assert first.what == "GPT-2 124M" and "course weights 124M" in first.value
    fetch("124M", small_124M)
    here, following = doctor.weights()
    assert here == doctor.Finding("GPT-2 124M", "here") and not following.cure
    assert following.value.endswith(
        "`course weights 355M` takes 1.5 GB of disk, 1.4 GB of memory to use, 6 GB to train further"
    )
