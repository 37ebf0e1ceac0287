"""The usual mistakes of chapter 11, for `course check 11 --package`; see 04_attention.py."""

import math
import re
from functools import cache

import torch
from torch.nn import functional as F

from gpt2.decoder import GPT, GPTConfig
from gpt2.language_model import perplexity
from gpt2.pretrained import (
    STOP_WORDS,
    WIKITEXT,
    Continuation,
    TextScore,
    choose_filled,
    encode_pair,
    guess_words,
    published_facts,
    published_shapes,
    score_continuations,
    score_text,
    sliding_losses,
    stored_names,
    turned,
    windows,
)
from gpt2.prompting import GAP
from gpt2.tokenizer import Tokenizer

TINY = GPTConfig(n_vocab=5, n_ctx=3, n_embd=2, n_head=1, n_layer=1)
WIDE = torch.tensor([[1, 2, 3], [4, 5, 6]])
SQUARE = torch.tensor([[1, 2], [3, 4]])
IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]
WEIGHTS = ["h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_fc.weight",
           "h.0.mlp.c_proj.weight"]  # fmt: skip
PREFIXED = ["transformer.wte.weight", "transformer.h.0.attn.bias",
            "transformer.h.0.attn.c_attn.bias"]  # fmt: skip
BARE = ["wte.weight", "h.0.attn.bias", "h.11.attn.masked_bias", "h.0.attn.c_proj.bias",
        "lm_head.weight"]  # fmt: skip
TEXT = "The cat sat on the mat. A dog saw the cat, and the cat saw the dog on the mat. "
CUT = ' " A 2 @.@ 5 year @-@ old ( cat ) , it \'s said . " \n'
PLAIN = ' "A 2.5 year-old (cat), it\'s said." \n'
PAIRS = [(TEXT + "A dog", " saw"), ("A", " dog"), ("", "The cat"),
         ("The cat saw the ", "mat. A")]  # fmt: skip
ENDS = [Continuation((1.0, 0.5), (True, True)), Continuation((2.0, 0.25), (False, True)),
        Continuation((0.5, 1.0), (False, True)), Continuation((0.5, 3.0), (True, False)),
        Continuation((3.0,), (False,))]  # fmt: skip
GAPS = ["A dog saw the ___ sat", "The ___ on the mat.", "The dog ___ saw the cat"]
EVERY = STOP_WORDS | {"cat", "sat", "mat", "dog", "saw", "aaw"}
STARTS = ["A dog saw the", "The cat sat", "The cat saw the dog on", "A dog", "the"]
WORDS = ["cat", "mat.", "dog on the mat", "saw", "The cat"]


@cache
def tokenizer(n_merges=12):
    return Tokenizer.train([TEXT * 3], n_merges)


@cache
def model():
    """Train a model for a moment: it knows some words, and is not sure."""
    config = GPTConfig(tokenizer().n_vocab, n_ctx=16, n_embd=16, n_head=2, n_layer=1)
    made, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        for p in made.parameters():
            p.data.copy_(0.2 * torch.randn(p.shape, generator=generator))
        ids = torch.tensor(tokenizer().encode(TEXT * 2)).unfold(0, 17, 1)
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
        for _ in range(40):
            logits = made(ids[:, :-1]).flatten(0, 1)
            F.cross_entropy(logits, ids[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
    return made.eval()


def raised(function, *arguments):
    """Return the kind of error only: its words are the learner's own."""
    try:
        return function(*arguments)
    except Exception as error:
        return type(error).__name__


def refused(function, *arguments):
    return raised(lambda: list(function(*arguments)))


def shapes(found):
    return sorted((name, tuple(shape)) for name, shape in found.items())


def losses(function, *arguments):
    return [round(x, 2) for x in function(model(), IDS, *arguments).tolist()]


def units(function, text, stride, **options):
    score = function(model(), tokenizer(), text, stride, **options)
    return (round(score.nats, 2), score.n_tokens, score.n_words, score.n_characters,
            score.n_bytes)  # fmt: skip


def pair(function, start, end):
    whole_words = tokenizer(23)
    ids, n = function(whole_words, start, end)
    return [whole_words.decode([i]) for i in ids], n


def ends(function):
    found = function(model(), tokenizer(), PAIRS)
    return [([round(x, 2) for x in end.nats], [bool(x) for x in end.first]) for end in found]


def rounded(scores):
    return [(name, round(x, 3)) for name, x in sorted(scores.items())]


def guessed(function, *arguments):
    return [function(model(), tokenizer(), start, *arguments) for start in STARTS]


def chosen(function, scoring):
    return [function(model(), tokenizer(), text, WORDS, scoring) for text in GAPS]


EXAMPLES = {
    "turned": ['f("h.0.mlp.c_fc.weight", WIDE).tolist()',
               'f("h.0.attn.c_proj.weight", SQUARE).tolist()',
               'f("wte.weight", WIDE).tolist()', 'f("wpe.weight", SQUARE).tolist()',
               '[f(name, WIDE).tolist() for name in WEIGHTS]',
               'f("h.0.attn.c_attn.bias", WIDE[0]).tolist()'],
    "published_shapes": ["shapes(f(TINY))"],
    "stored_names": ["f(PREFIXED)", "f(BARE)",
                     'raised(f, ["wpe.weight", "transformer.wpe.weight"])'],
    "published_facts": ["list(f())"],
    "windows": ["list(f(10, 4, 3))", "list(f(10, 4, 4))", "list(f(9, 4, 3))", "list(f(6, 4, 1))",
                "list(f(3, 4, 2))", "list(f(0, 4, 2))", "refused(f, 10, 4, 5)"],
    "sliding_losses": ["losses(f, 3, 4)", "losses(f, 4, 4)", "losses(f, 8)"],
    "score_text": ['units(f, "A dog", 8)', 'units(f, "The cat saw the mat. Käse", 3)',
                   'units(f, "A cat, a dog", 3, original="A cat , a dog", n_ctx=4)',
                   'raised(f, model(), tokenizer(), "", 3)'],
    "detokenize": ["f(CUT)", "f(PLAIN)", 'f(" a dog , 1 @,@ 000 \\n")'],
    "retokenize": ["f(PLAIN)", "f(CUT)", 'f(" a dog, 1,000 \\n")'],
    "encode_pair": ['pair(f, "The cat", " sat")', 'pair(f, "The cat ", "sat")',
                    'pair(f, "", "The")', 'pair(f, "A dog", " saw the")'],
    "score_continuations": ["ends(f)"],
    "split_last_word": ['f("I do not know")', 'f("A dog saw")'],
    "last_word_scores": ["rounded(f(ENDS))", "raised(f, [])"],
    "guess_words": ["guessed(f, 12, 3)", "guessed(f, 3, 1)"],
    "guess_word": ["guessed(f)", 'guessed(f, frozenset({"cat"}))', "raised(guessed, f, EVERY)"],
    "choose_filled": ['chosen(f, "full")', 'chosen(f, "partial")', 'chosen(f, "word")',
                      'chosen(f, "mean")', 'raised(chosen, f, "best")',
                      'raised(f, model(), tokenizer(), "no gap", WORDS)',
                      'raised(f, model(), tokenizer(), "the last ___", WORDS, "partial")'],
}  # fmt: skip


# --- The names and shapes of a file --------------------------------------------------------------


def turned__as_stored(name, weight):
    """Nothing is transposed. Conv1D stores (in, out) and nn.Linear (out, in): transpose the four
    weights called c_attn, c_fc and c_proj."""
    return weight


def turned__not_the_square(name, weight):
    """A square matrix is left as it is. attn.c_proj is square and still needs transposing; no
    shape shows it. Decide by the name, not by the shape."""
    is_square = weight.ndim == 2 and weight.size(0) == weight.size(1)
    return weight if is_square else turned(name, weight)


def turned__every_matrix(name, weight):
    """Every matrix is transposed, the embeddings too. wte and wpe are stored as we use them: only
    c_attn, c_fc and c_proj are Conv1D."""
    return weight.t() if weight.ndim == 2 else weight


def turned__reshaped(name, weight):
    """The shape is right, the order of the numbers is not: reshape and view keep the order in
    memory. Transpose: weight.t()."""
    return weight.reshape(weight.t().shape) if name in WEIGHTS else weight


def turned__mlp_alone(name, weight):
    """Only the MLP's weights are transposed. The attention's c_attn and c_proj are Conv1D too."""
    return turned(name, weight) if ".mlp." in name else weight


def turned__not_c_proj(name, weight):
    """c_proj is not transposed. It is Conv1D too, in the attention and in the MLP."""
    return weight if "c_proj" in name else turned(name, weight)


def turned__attention_alone(name, weight):
    """Only the attention's weights are transposed. The MLP's c_fc and c_proj are Conv1D too."""
    return turned(name, weight) if ".attn." in name else weight


def published_shapes__ours(config):
    """These are the shapes in our model. A file stores Conv1D weights as (in, out): pass each
    parameter through `turned`."""
    return {name: turned(name, torch.empty(shape, device="meta")).shape
            for name, shape in published_shapes(config).items()}  # fmt: skip


def published_shapes__with_a_head(config):
    """lm_head.weight is listed. The head is tied to wte, so it is not a weight of its own."""
    return published_shapes(config) | {"lm_head.weight": (config.n_vocab, config.n_embd)}


def published_shapes__with_masks(config):
    """The mask of each layer, attn.bias, is listed. It is a buffer, not a weight: list
    named_parameters() only."""
    mask = (1, 1, config.n_ctx, config.n_ctx)
    masks = {f"h.{layer}.attn.bias": mask for layer in range(config.n_layer)}
    return published_shapes(config) | masks


def published_shapes__with_the_prefix(config):
    """The names begin with `transformer.`: leave it out. `stored_names` maps our names to those
    of a file that has the prefix."""
    return {f"transformer.{name}": shape for name, shape in published_shapes(config).items()}


def by_our_name(names, short=lambda name: name.removeprefix("transformer."),
                dropped=r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight"):  # fmt: skip
    ours = {}
    for name in names:
        if short(name) in ours:
            raise ValueError
        if not re.fullmatch(dropped, name.removeprefix("transformer.")):
            ours[short(name)] = name
    return ours


def stored_names__keeps_the_prefix(names):
    """Our names keep the prefix `transformer.` that some files add: remove it."""
    return by_our_name(names, short=str)


def stored_names__cuts_twelve_characters(names):
    """Twelve characters are cut off every name, but only some files have the prefix: use
    removeprefix."""
    return by_our_name(names, short=lambda name: name[len("transformer.") :])


def stored_names__keeps_the_masks(names):
    """The masks are kept: attn.bias and attn.masked_bias are buffers, not weights. Leave them
    out."""
    return by_our_name(names, dropped=r"lm_head\.weight")


def stored_names__keeps_the_masked_bias(names):
    """attn.masked_bias is kept. Like attn.bias it is a buffer, not a weight: leave both out."""
    return by_our_name(names, dropped=r"h\.\d+\.attn\.bias|lm_head\.weight")


def stored_names__drops_all_biases_of_attention(names):
    """The biases c_attn.bias and c_proj.bias are dropped with the masks, but they are weights. Only
    attn.bias and attn.masked_bias are masks."""
    return by_our_name(names, dropped=r"h\.\d+\.attn\..*bias|lm_head\.weight")


def stored_names__keeps_the_head(names):
    """lm_head.weight is kept. The head is tied: it is wte again, and our model has no parameter of
    that name."""
    return by_our_name(names, dropped=r"h\.\d+\.attn\.(masked_)?bias")


def stored_names__the_other_way(names):
    """The dictionary maps names of the file to ours: swap keys and values."""
    return {stored: ours for ours, stored in stored_names(names).items()}


def stored_names__one_of_two(names):
    """A weight that appears twice, with a prefix and without, is accepted, and one of the two is
    ignored: raise ValueError."""
    ours = {}
    for name in names:
        ours |= stored_names([name])
    return ours


def published_facts__unparsed():
    """The file's text is returned. It is JSON: json.loads makes a dictionary of it."""
    import json

    return json.dumps(published_facts(), indent=1)


def published_facts__prompts_only():
    """Only the prompts are returned: return the whole dictionary, with the sources."""
    return published_facts()["prompts"]


# --- Perplexity: windows and units ---------------------------------------------------------------


def windows__scores_all_again(n, n_ctx, stride):
    """Where windows overlap, targets are scored twice. A window scores only what follows the end
    of the window before it."""
    for start, end, _ in windows(n, n_ctx, stride):
        yield start, end, end - start


def windows__stride_in_the_first(n, n_ctx, stride):
    """The first window, too, scores only `stride` targets, so those before are never scored. It
    scores all of its targets."""
    for start, end, k in windows(n, n_ctx, stride):
        yield start, end, min(k, stride)


def windows__grows_from_the_stride(n, n_ctx, stride):
    """The first window is only `stride` long. It is as long as the context, and only the others
    move on by `stride`."""
    windows(n, n_ctx, stride)
    for done in range(0, n, stride):
        end = min(n, done + stride)
        yield max(0, end - n_ctx), end, end - done


def windows__last_one_does_not_reach_back(n, n_ctx, stride):
    """The last window is shorter than the context, so its targets see less than they could. Let it
    begin n_ctx before its end."""
    for i, (_, end, k) in enumerate(windows(n, n_ctx, stride)):
        yield i * stride, end, k


def windows__drops_the_rest(n, n_ctx, stride):
    """The last targets are lost where a whole stride no longer fits. The last window scores those
    that are left."""
    for start, end, k in windows(n, n_ctx, stride):
        if k == (stride if start else n_ctx):
            yield start, end, k


def windows__context_one_short(n, n_ctx, stride):
    """Windows read n_ctx - 1 ids: a window begins at end - n_ctx, because `end` itself is
    excluded."""
    for start, end, k in windows(n, n_ctx, stride):
        yield (start + 1 if start else 0), end, k


def windows__context_one_long(n, n_ctx, stride):
    """Windows read n_ctx + 1 ids, one more than the model can: begin at end - n_ctx."""
    for start, end, k in windows(n, n_ctx, stride):
        yield max(0, end - n_ctx - 1) if start else 0, end, k


def windows__no_overlap(n, n_ctx, stride):
    """The stride is ignored: windows follow each other without overlap."""
    return windows(n, n_ctx, n_ctx)


def windows__one_target_fewer(n, n_ctx, stride):
    """The last target is missing: n is the number of targets, already one less than the ids."""
    return windows(n - 1, n_ctx, stride)


def windows__any_stride(n, n_ctx, stride):
    """A stride longer than the context is accepted, and targets between windows are skipped: raise
    ValueError."""
    return windows(n, n_ctx, min(stride, n_ctx))


def window_losses(model, ids, stride, n_ctx=None, shift=1, first=False, every=False):
    """Go window by window, with one thing or another changed; a list of (n,)."""
    n_ctx = n_ctx or model.config.n_ctx
    text, found = torch.tensor(ids), []
    with torch.inference_mode():
        for start, end, n in windows(len(ids) - 1, n_ctx, stride):
            p = model(text[None, start:end])[0].log_softmax(-1)
            n = end - start if every else n
            p, y = (p[:n] if first else p[-n:]), text[end - n + shift : end + shift]
            found.append(-p.gather(1, y[:, None])[:, 0])
    return found


def sliding_losses__the_id_itself(model, ids, stride, n_ctx=None, progress=False):
    """Each prediction is compared with the id that the model has just read. The target is the id
    after it."""
    return torch.cat(window_losses(model, ids, stride, n_ctx, shift=0))


def sliding_losses__the_first_of_each_window(model, ids, stride, n_ctx=None, progress=False):
    """The logits of a window's first positions are taken, but its last n_scored predictions are to
    be scored: [:, -n:]."""
    return torch.cat(window_losses(model, ids, stride, n_ctx, first=True))


def sliding_losses__counts_twice(model, ids, stride, n_ctx=None, progress=False):
    """Where windows overlap, tokens are counted twice. Score only the last n_scored predictions of
    each window."""
    return torch.cat(window_losses(model, ids, stride, n_ctx, every=True))


def sliding_losses__means_of_windows(model, ids, stride, n_ctx=None, progress=False):
    """Each window's mean is returned. Windows score different numbers of tokens, so the mean of
    their means is not the mean over tokens: return the loss of each token."""
    return torch.stack([part.mean() for part in window_losses(model, ids, stride, n_ctx)])


def sliding_losses__one_mean(model, ids, stride, n_ctx=None, progress=False):
    """One mean is returned: return the loss of each id but the first, (N - 1,)."""
    return sliding_losses(model, ids, stride, n_ctx).mean(0, keepdim=True)


def sliding_losses__in_bits(model, ids, stride, n_ctx=None, progress=False):
    """These losses are in bits; return nats: use ln, not log2."""
    return sliding_losses(model, ids, stride, n_ctx) / math.log(2)


def sliding_losses__sign(model, ids, stride, n_ctx=None, progress=False):
    """The sign is wrong: a loss is -ln p, and not below 0."""
    return -sliding_losses(model, ids, stride, n_ctx)


def sliding_losses__ignores_n_ctx(model, ids, stride, n_ctx=None, progress=False):
    """`n_ctx` is ignored: where it is given, it replaces the model's context."""
    return sliding_losses(model, ids, stride)


def sliding_losses__no_overlap(model, ids, stride, n_ctx=None, progress=False):
    """The stride is ignored: windows do not overlap, and each begins without any context."""
    n_ctx = n_ctx or model.config.n_ctx
    return sliding_losses(model, ids, n_ctx, n_ctx)


def sliding_losses__scores_the_first(model, ids, stride, n_ctx=None, progress=False):
    """There is a loss for the first id too. Nothing comes before it, so it is not predicted: N ids
    have N - 1 targets."""
    first = torch.tensor([math.log(model.config.n_vocab)])
    return torch.cat([first, sliding_losses(model, ids, stride, n_ctx)])


def scored(model, tokenizer, text, stride, options, ids=None, **changed):
    """Score as the course does, then change some of the numbers."""
    n_ctx = options.get("n_ctx")
    score = vars(score_text(model, tokenizer, text, stride, original=options.get("original"),
                            n_ctx=n_ctx))  # fmt: skip
    if ids:
        score["nats"] = float(sliding_losses(model, ids, stride, n_ctx).double().sum())
    return TextScore(**score | {name: change(score) for name, change in changed.items()})


def score_text__first_token_free(model, tokenizer, text, stride, **options):
    """The first token is not scored, because nothing comes before it: put an end-of-text before
    the text."""
    return scored(model, tokenizer, text, stride, options, tokenizer.encode(text))


def score_text__scores_the_end(model, tokenizer, text, stride, **options):
    """The end-of-text after the text is scored too: put one before the text only."""
    end = tokenizer.end_of_text
    return scored(model, tokenizer, text, stride, options, [end, *tokenizer.encode(text), end])


def score_text__counts_the_end_of_text(model, tokenizer, text, stride, **options):
    """There is one token too many: the end-of-text before the text is read, not scored."""
    more = {"n_tokens": lambda score: score["n_tokens"] + 1}
    return scored(model, tokenizer, text, stride, options, **more)


def score_text__mean(model, tokenizer, text, stride, **options):
    """The loss is a mean over tokens: return the sum for the whole text. TextScore divides it by
    whatever unit you name."""
    mean = {"nats": lambda score: score["nats"] / score["n_tokens"]}
    return scored(model, tokenizer, text, stride, options, **mean)


def score_text__in_bits(model, tokenizer, text, stride, **options):
    """The loss is in bits: leave it in nats. TextScore converts it."""
    bits = {"nats": lambda score: score["nats"] / math.log(2)}
    return scored(model, tokenizer, text, stride, options, **bits)


def score_text__characters_for_bytes(model, tokenizer, text, stride, **options):
    """Characters are counted as bytes. In UTF-8 a character has one to four: len(text.encode())."""
    characters = {"n_bytes": lambda score: score["n_characters"]}
    return scored(model, tokenizer, text, stride, options, **characters)


def score_text__tokens_for_words(model, tokenizer, text, stride, **options):
    """Tokens are counted as words. Words are what white space separates: len(text.split())."""
    tokens = {"n_words": lambda score: score["n_tokens"]}
    return scored(model, tokenizer, text, stride, options, **tokens)


def score_text__ignores_the_original(model, tokenizer, text, stride, **options):
    """`original` is ignored. The model reads the text; where `original` is given, words,
    characters and bytes are counted in it."""
    return score_text(model, tokenizer, text, stride, **options | {"original": None})


def score_text__reads_the_original(model, tokenizer, text, stride, **options):
    """The model reads `original`. It must read the text; `original` is only for counting words,
    characters and bytes."""
    return score_text(model, tokenizer, options.get("original") or text, stride, **options)


def score_text__ignores_n_ctx(model, tokenizer, text, stride, **options):
    """`n_ctx` is not passed on to `sliding_losses`."""
    return score_text(model, tokenizer, text, stride, **options | {"n_ctx": None})


def score_text__takes_an_empty_text(model, tokenizer, text, stride, **options):
    """An empty text is accepted, and a division by 0 follows later: raise ValueError."""
    empty = TextScore(0.0, 0, 0, 0, 0)
    return score_text(model, tokenizer, text, stride, **options) if text else empty


def detokenize__last_pattern_only(text):
    """Each pattern is applied to the original text, so only the last change is kept. Assign the
    result to `text` each time."""
    return re.sub(*WIKITEXT[-1][:2], text)


def detokenize__literally(text):
    """Nothing changes: str.replace takes a pattern literally. It is a regular expression:
    re.sub."""
    for find, replace, _, _ in WIKITEXT:
        text = text.replace(find, replace)
    return text


def detokenize__separates(text):
    """The last two columns of WIKITEXT are used, and they separate tokens. The first two join
    them."""
    for _, _, find, replace in WIKITEXT:
        text = re.sub(find, replace, text)
    return text


def detokenize__strips(text):
    """White space at the ends of the text is lost. Only the patterns of WIKITEXT change
    anything."""
    for find, replace, _, _ in WIKITEXT:
        text = re.sub(find, replace, text)
    return text.strip()


def detokenize__reversed(text):
    """The patterns are applied from the last to the first: only `retokenize` is reversed."""
    for find, replace, _, _ in reversed(WIKITEXT):
        text = re.sub(find, replace, text)
    return text


def retokenize__last_pattern_only(text):
    """Each pattern is applied to the original text, so only the last change is kept. Assign the
    result to `text` each time."""
    return re.sub(*WIKITEXT[0][2:], text)


def retokenize__literally(text):
    """Nothing changes: str.replace takes a pattern literally. It is a regular expression:
    re.sub."""
    for _, _, find, replace in WIKITEXT:
        text = text.replace(find, replace)
    return text


def retokenize__joins(text):
    """The first two columns of WIKITEXT are used, and they join tokens. The last two separate
    them."""
    for find, replace, _, _ in reversed(WIKITEXT):
        text = re.sub(find, replace, text)
    return text


def retokenize__not_reversed(text):
    """The patterns are undone in the order in which they were applied. Undo the last one first:
    reversed(WIKITEXT)."""
    for _, _, find, replace in WIKITEXT:
        text = re.sub(find, replace, text)
    return text


# --- Last words ----------------------------------------------------------------------------------


def encode_pair__each_by_itself(tokenizer, start, end):
    """The two texts are encoded separately, which can give other tokens than the whole text has.
    Encode start + end as one."""
    first, last = tokenizer.encode(start), tokenizer.encode(end)
    return [*(first or [tokenizer.end_of_text]), *last], len(last)


def encode_pair__counts_the_end_alone(tokenizer, start, end):
    """The ending's tokens are counted in the ending alone, which may be cut differently there.
    Subtract the tokens of the start from those of the whole."""
    return encode_pair(tokenizer, start, end)[0], len(tokenizer.encode(end))


def encode_pair__space_with_the_start(tokenizer, start, end):
    """A space at the end of the start is counted with the start. It belongs to the ending: count
    the tokens of start.rstrip()."""
    ids, _ = encode_pair(tokenizer, start, end)
    return ids, len(ids) - (len(tokenizer.encode(start)) or 1)


def encode_pair__drops_the_space(tokenizer, start, end):
    """The space between the texts is lost: encode start + end as it is."""
    return encode_pair(tokenizer, start.rstrip(), end)


def encode_pair__nothing_before(tokenizer, start, end):
    """After an empty start nothing comes before the ending, so its first token is not predicted:
    put an end-of-text there."""
    ids, n = encode_pair(tokenizer, start, end)
    return (ids, n) if start else (ids[1:], n)


def encode_pair__counts_the_end_of_text(tokenizer, start, end):
    """The end-of-text that replaces an empty start is counted with the ending."""
    ids, n = encode_pair(tokenizer, start, end)
    return ids, n if start else n + 1


def encode_pair__always_an_end_of_text(tokenizer, start, end):
    """An end-of-text comes before every pair: put one only where the start is empty."""
    ids, n = encode_pair(tokenizer, start, end)
    return ([tokenizer.end_of_text, *ids] if start else ids), n


def encode_pair__length_of_the_start(tokenizer, start, end):
    """The number of the start's tokens is returned: return the number of the ending's."""
    ids, n = encode_pair(tokenizer, start, end)
    return ids, len(ids) - n


def continuations(model, tokenizer, pairs, cut=None, shift=1, whole=False, unit=1.0):
    """Score pair by pair, with one thing or another changed."""
    cut = cut or (lambda ids: ids[-model.config.n_ctx - 1 :])
    found = []
    for start, end in pairs:
        ids, n = encode_pair(tokenizer, start, end)
        text = torch.tensor(cut(ids))
        n = len(text) - 1 if whole else min(n, len(text) - 1)
        with torch.inference_mode():
            p = model(text[None, 1 - shift : len(text) - shift][:, -model.config.n_ctx :])[0]
        p, y = p.log_softmax(-1)[-n:], text[-n:]
        nats = unit * -p.gather(1, y[:, None])[:, 0]
        found.append(Continuation(tuple(nats.tolist()), tuple((p.argmax(-1) == y).tolist())))
    return found


def score_continuations__the_start_too(model, tokenizer, pairs, progress=False):
    """The start is scored too. It is given: score the ending's tokens only."""
    return continuations(model, tokenizer, pairs, whole=True)


def score_continuations__the_token_itself(model, tokenizer, pairs, progress=False):
    """A token is scored by the logits at its own position, which predict the next one. Use the
    logits one position before."""
    return continuations(model, tokenizer, pairs, shift=0)


def score_continuations__cut_from_the_right(model, tokenizer, pairs, progress=False):
    """A text that is too long loses its ending. Keep its last n_ctx + 1 ids: [-longest:]."""
    return continuations(model, tokenizer, pairs, lambda ids: ids[: model.config.n_ctx + 1])


def score_continuations__context_one_short(model, tokenizer, pairs, progress=False):
    """One id too many is cut from a long text. The last id is predicted and not read, so n_ctx + 1
    ids fit."""
    return continuations(model, tokenizer, pairs, lambda ids: ids[-model.config.n_ctx :])


def score_continuations__in_bits(model, tokenizer, pairs, progress=False):
    """These losses are in bits; return nats: use ln, not log2."""
    return continuations(model, tokenizer, pairs, unit=1 / math.log(2))


def score_continuations__sign(model, tokenizer, pairs, progress=False):
    """The sign is wrong: a loss is -ln p, and not below 0."""
    return continuations(model, tokenizer, pairs, unit=-1.0)


def score_continuations__by_length(model, tokenizer, pairs, progress=False):
    """The results are in the order of length in which the batches were made. Return them in the
    order of the pairs."""
    length = [len(encode_pair(tokenizer, *pair)[0]) for pair in pairs]
    order = sorted(range(len(pairs)), key=length.__getitem__)
    return score_continuations(model, tokenizer, [pairs[i] for i in order])


def score_continuations__reads_the_padding(model, tokenizer, pairs, progress=False):
    """Shorter texts of a batch end in padding, and [-n:] finds it there. Count from each text's own
    length."""
    rows = [encode_pair(tokenizer, start, end) for start, end in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    found = {}
    for batch in (order[i : i + 8] for i in range(0, len(order), 8)):
        texts = [torch.tensor(rows[i][0][-model.config.n_ctx - 1 :]) for i in batch]
        x = torch.nn.utils.rnn.pad_sequence([t[:-1] for t in texts], batch_first=True)
        with torch.inference_mode():
            logits = model(x)
        for i, text, row in zip(batch, texts, logits, strict=True):
            n = min(rows[i][1], len(text) - 1)
            p, y = row[-n:].log_softmax(-1), text[-n:]
            nats = -p.gather(1, y[:, None])[:, 0]
            found[i] = Continuation(tuple(nats.tolist()), tuple((p.argmax(-1) == y).tolist()))
    return [found[i] for i in range(len(rows))]


def split_last_word__space_with_the_start(text):
    """The space stays with the start. It goes with the word, as in GPT-2's tokens."""
    start, space, word = text.rstrip().rpartition(" ")
    return start + space, word


def split_last_word__no_space(text):
    """The space is lost. It goes with the word, as in GPT-2's tokens."""
    start, _, word = text.rstrip().rpartition(" ")
    return start, word


def split_last_word__first_space(text):
    """The text is split at its first space: split it at the last one, with rpartition."""
    start, space, word = text.rstrip().partition(" ")
    return start, space + word


def last_words(ends, token=lambda end: end.first[-1], word=lambda end: all(end.first),
               loss=lambda end: sum(end.nats)):  # fmt: skip
    n = len(ends)
    if not n:
        raise ValueError
    return {
        "last token": sum(map(token, ends)) / n,
        "last word": sum(map(word, ends)) / n,
        "perplexity": math.exp(sum(map(loss, ends)) / n),
    }


def last_word_scores__first_token(ends):
    """For "last token" the word's first token is looked at: end.first has one entry for each token
    of the word, and [-1] is the last."""
    return last_words(ends, token=lambda end: end.first[0])


def last_word_scores__any_token(ends):
    """For "last word" one right token is enough. All tokens of the word must be right."""
    return last_words(ends, word=lambda end: any(end.first))


def last_word_scores__last_token_for_both(ends):
    """For "last word" only the last token is looked at. All tokens of the word must be right."""
    return last_words(ends, word=lambda end: end.first[-1])


def last_word_scores__per_token(ends):
    """The perplexity is per token: divide the nats by the number of words, not of tokens."""
    n = sum(len(end.nats) for end in ends)
    return last_words(ends, loss=lambda end: sum(end.nats) / n * len(ends))


def last_word_scores__mean_in_each_word(ends):
    """The loss of a word is a mean over its tokens. Their probabilities multiply, so their losses
    add up: take the sum."""
    return last_words(ends, loss=lambda end: sum(end.nats) / len(end.nats))


def last_word_scores__loss_of_the_last_token(ends):
    """Only the last token's loss is in the perplexity: add up the losses of all tokens of the
    word."""
    return last_words(ends, loss=lambda end: end.nats[-1])


def last_word_scores__mean_of_perplexities(ends):
    """This is a mean of perplexities. Take the mean of the losses first, then exp."""
    mean = sum(perplexity(sum(end.nats)) for end in ends) / max(len(ends), 1)
    return last_words(ends) | {"perplexity": mean}


def last_word_scores__base_2(ends):
    """The perplexity is a power of 2, but the losses are in nats: take exp."""
    return last_words(ends, loss=lambda end: math.log(2) * sum(end.nats))


def last_word_scores__percent(ends):
    """The accuracies are percentages: return fractions, from 0 to 1."""
    return {name: x * (1 if name == "perplexity" else 100)
            for name, x in last_words(ends).items()}  # fmt: skip


def last_word_scores__divides_by_0(ends):
    """Without any endings there is a division by 0: raise ValueError, which says why."""
    return last_words(ends) if ends else 1 / 0


def guess(model, tokenizer, start, n=8, n_pieces=8, ranked=True, ends=True, counts_end=False,
          kept=r" \w"):  # fmt: skip
    """Continue each token without a cache, with one thing or another changed."""
    ids, found = tokenizer.encode(start), []

    def scores(row):
        with torch.inference_mode():
            return model(torch.tensor([row[-model.config.n_ctx :]]))[0, -1].log_softmax(-1)

    nats = scores(ids)
    for token in nats.topk(min(n, len(nats))).indices.tolist():
        row, p = [*ids, token], float(nats[token])
        for _ in range(n_pieces - 1):
            after = scores(row)
            piece = tokenizer.decode([int(after.argmax())])
            is_end = ends and re.match(r'[\s.,;:!?")]|<\|endoftext', piece)
            p += 0.0 if is_end and not counts_end else float(after.max())
            if is_end:
                break
            row.append(int(after.argmax()))
        found.append((p, tokenizer.decode(row[len(ids) :])))
    found = sorted(found, key=lambda pair: -pair[0]) if ranked else found
    return [text for _, text in found if re.match(kept, text)]


def guess_words__first_tokens(model, tokenizer, start, n=8, n_pieces=8):
    """These are single tokens. A word can have several: continue each one greedily."""
    return guess(model, tokenizer, start, n, 1)


def guess_words__as_their_first_tokens(model, tokenizer, start, n=8, n_pieces=8):
    """The words are in the order of their first tokens. Multiply the probabilities of all tokens of
    a word, then sort."""
    return guess(model, tokenizer, start, n, n_pieces, ranked=False)


def guess_words__never_end(model, tokenizer, start, n=8, n_pieces=8):
    """A word goes on to n_pieces tokens. It ends before white space or punctuation."""
    return guess(model, tokenizer, start, n, n_pieces, ends=False)


def guess_words__count_their_end(model, tokenizer, start, n=8, n_pieces=8):
    """The token that ends a word is part of its probability: count only the word's own tokens."""
    return guess(model, tokenizer, start, n, n_pieces, counts_end=True)


def guess_words__all_kept(model, tokenizer, start, n=8, n_pieces=8):
    """Punctuation and ends of words are among the results. A new word begins with a space and a
    letter."""
    return guess(model, tokenizer, start, n, n_pieces, kept="")


def guess_words__stripped(model, tokenizer, start, n=8, n_pieces=8):
    """The words have lost their spaces: return each with the space before it."""
    return [word.strip() for word in guess(model, tokenizer, start, n, n_pieces)]


def guess_word__refuses_nothing(model, tokenizer, start, refused=STOP_WORDS):
    """No word is refused. Strip a word of its space before you look it up in `refused`, and skip it
    if it is there."""
    return next(word.strip() for word in guess_words(model, tokenizer, start))


def guess_word__with_its_space(model, tokenizer, start, refused=STOP_WORDS):
    """The word has kept its space: strip it."""
    words = guess_words(model, tokenizer, start)
    return next((word for word in words if word.strip().lower() not in refused), "")


def guess_word__the_likeliest_or_none(model, tokenizer, start, refused=STOP_WORDS):
    """Only the likeliest word is tried. If it is refused, try the next."""
    word = guess_words(model, tokenizer, start)[0].strip()
    return "" if word.lower() in refused else word


def guess_word__no_word_left(model, tokenizer, start, refused=STOP_WORDS):
    """If every word is refused, there is an error: return an empty text."""
    words = [word.strip() for word in guess_words(model, tokenizer, start)]
    return min((w for w in words if w.lower() not in refused), key=words.index)


# --- Choosing ------------------------------------------------------------------------------------


def choose(model, tokenizer, text, candidates, scoring="full", best=min, of=None):
    """Choose as the course does, with another scoring, or another choice."""
    choose_filled(model, tokenizer, text, candidates, scoring)  # raises what it must
    before, _, after = text.partition(GAP)
    of = of or (lambda nats, scoring: sum(nats) / (len(nats) if scoring == "mean" else 1))
    after = "" if scoring == "word" else after
    pairs = [(before + word, after) if scoring == "partial" else (before, word + after)
             for word in candidates]  # fmt: skip
    ends = score_continuations(model, tokenizer, pairs)
    losses = [of(end.nats, scoring) for end in ends]
    return candidates[losses.index(best(losses))]


def choose_filled__always_full(model, tokenizer, text, candidates, scoring="full"):
    """Every scoring is treated as "full": the candidate and what follows it, not divided."""
    choose_filled(model, tokenizer, text, candidates, scoring)
    return choose_filled(model, tokenizer, text, candidates)


def choose_filled__worst(model, tokenizer, text, candidates, scoring="full"):
    """The candidate of the highest loss is chosen: take the lowest."""
    return choose(model, tokenizer, text, candidates, scoring, best=max)


def choose_filled__swapped(model, tokenizer, text, candidates, scoring="full"):
    """The scorings "full" and "partial" are swapped: "partial" scores only what follows the
    candidate."""
    choose_filled(model, tokenizer, text, candidates, scoring)
    swapped = {"full": "partial", "partial": "full"}.get(scoring, scoring)
    return choose_filled(model, tokenizer, text, candidates, swapped)


def choose_filled__partial_is_full(model, tokenizer, text, candidates, scoring="full"):
    """The scoring "partial" counts the candidate too. The candidate is part of the start there:
    score only what follows it."""
    choose_filled(model, tokenizer, text, candidates, scoring)
    scoring = "full" if scoring == "partial" else scoring
    return choose_filled(model, tokenizer, text, candidates, scoring)


def choose_filled__word_is_full(model, tokenizer, text, candidates, scoring="full"):
    """The scoring "word" counts what follows too: score the candidate alone."""
    scoring = "full" if scoring == "word" else scoring
    return choose_filled(model, tokenizer, text, candidates, scoring)


def choose_filled__mean_is_a_sum(model, tokenizer, text, candidates, scoring="full"):
    """The scoring "mean" is not divided by the number of tokens, so long candidates lose."""
    scoring = "full" if scoring == "mean" else scoring
    return choose_filled(model, tokenizer, text, candidates, scoring)


def choose_filled__means_everywhere(model, tokenizer, text, candidates, scoring="full"):
    """Every scoring is divided by the number of tokens: only "mean" is."""
    mean = lambda nats, _: sum(nats) / len(nats)  # noqa: E731
    return choose(model, tokenizer, text, candidates, scoring, of=mean)


def choose_filled__number(model, tokenizer, text, candidates, scoring="full"):
    """The number of the candidate is returned: return the candidate."""
    return candidates.index(choose_filled(model, tokenizer, text, candidates, scoring))


def choose_filled__any_scoring(model, tokenizer, text, candidates, scoring="full"):
    """An unknown scoring is accepted: raise ValueError."""
    known = scoring in ("full", "partial", "word", "mean")
    return choose_filled(model, tokenizer, text, candidates, scoring if known else "full")


def choose_filled__no_gap_needed(model, tokenizer, text, candidates, scoring="full"):
    """A text without a gap is accepted, and the candidates go to its end: raise ValueError."""
    whole = text if GAP in text else f"{text}{GAP}"
    return choose_filled(model, tokenizer, whole, candidates, scoring)
