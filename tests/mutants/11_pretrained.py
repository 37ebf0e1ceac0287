"""Wrong answers to the exercises of chapter 11, the mistakes that people make, and right ones.

Each function is named after the answer that it stands in for and what is wrong with it;
`NAME__right__how` is right in another way and must earn every point.
"""

import itertools
import math
import re

CONV1D = ("c_attn.weight", "c_fc.weight", "c_proj.weight")


def convert(stored, turn, name_of=lambda name: name.removeprefix("transformer."), skip=()):
    """Go through a file as the solution does, with one thing or another bent."""
    skip = skip or (".attn.bias", ".attn.masked_bias", "lm_head.weight")
    return {name_of(name): turn(name, w) for name, w in stored.items() if not name.endswith(skip)}


def by_name(name, w):
    return w.t() if name.endswith(CONV1D) else w


def to_ours__copies_all_as_they_are(stored):
    return convert(stored, lambda name, w: w)  # the misconception


def to_ours__turns_what_is_not_square(stored):
    """The square attn.c_proj stays as it was stored."""

    def turn(name, w):
        return w.t() if name.endswith(CONV1D) and w.size(0) != w.size(1) else w

    return convert(stored, turn)


def to_ours__turns_every_matrix(stored):
    return convert(stored, lambda name, w: w.t() if w.ndim == 2 else w)


def to_ours__forgets_the_attention(stored):
    return convert(stored, lambda name, w: w.t() if ".mlp." in name and w.ndim == 2 else w)


def to_ours__keeps_the_masks(stored):
    return convert(stored, by_name, skip=("lm_head.weight",))


def to_ours__keeps_the_head(stored):
    return convert(stored, by_name, skip=(".attn.bias", ".attn.masked_bias"))


def to_ours__takes_every_bias_of_attention_for_a_mask(stored):
    kept = {n: w for n, w in stored.items() if not re.search(r"attn\..*bias|attn\.bias", n)}
    return convert(kept, by_name)


def to_ours__keeps_the_prefix(stored):
    return convert(stored, by_name, name_of=lambda name: name)


def to_ours__cuts_twelve_characters(stored):
    return convert(stored, by_name, name_of=lambda name: name[len("transformer.") :])


def to_ours__works_in_place(stored):
    for name in list(stored):
        w = stored.pop(name)
        if not name.endswith((".attn.bias", ".attn.masked_bias", "lm_head.weight")):
            stored[name.removeprefix("transformer.")] = by_name(name, w)
    return stored


def to_ours__views_instead_of_transposing(stored):
    def turn(name, w):
        return w.reshape(w.size(1), w.size(0)) if name.endswith(CONV1D) else w

    return convert(stored, turn)


def to_ours__right__by_regular_expressions(stored):
    ours = {}
    for name, w in stored.items():
        short = re.sub(r"^transformer\.", "", name)
        if re.fullmatch(r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight", short):
            continue
        is_conv = re.search(r"\.(c_attn|c_fc|c_proj)\.weight$", short)
        ours[short] = w.transpose(0, 1).contiguous() if is_conv else w.clone()
    return ours


def in_order(bits, reverse=False):
    return dict(sorted(bits.items(), key=lambda pair: pair[1], reverse=reverse))


def rank__by_perplexity(reports, text):
    return in_order({name: ppl for name, (ppl, _) in reports.items()})  # the misconception


def rank__right_bits_in_the_order_of_perplexity(reports, text):
    size = len(text.encode())
    names = sorted(reports, key=lambda name: reports[name][0])
    return {n: reports[n][1] * math.log2(reports[n][0]) / size for n in names}


def rank__in_nats(reports, text):
    size = len(text.encode())
    return in_order({n: k * math.log(p) / size for n, (p, k) in reports.items()})


def rank__by_characters(reports, text):
    return in_order({n: k * math.log2(p) / len(text) for n, (p, k) in reports.items()})


def rank__by_words(reports, text):
    words = len(text.split())
    return in_order({n: k * math.log2(p) / words for n, (p, k) in reports.items()})


def rank__bits_per_token(reports, text):
    return in_order({n: math.log2(p) for n, (p, _) in reports.items()})


def rank__whole_text(reports, text):
    return in_order({n: k * math.log2(p) for n, (p, k) in reports.items()})


def rank__worst_first(reports, text):
    size = len(text.encode())
    return in_order({n: k * math.log2(p) / size for n, (p, k) in reports.items()}, True)


def rank__as_they_came(reports, text):
    size = len(text.encode())
    return {n: k * math.log2(p) / size for n, (p, k) in reports.items()}


def rank__names_alone(reports, text):
    return sorted(reports, key=lambda n: reports[n][1] * math.log2(reports[n][0]))


def rank__right__by_natural_logarithms(reports, text):
    data, bits = text.encode("utf-8"), []
    for name, (ppl, n_tokens) in reports.items():
        bits.append((math.log(ppl) * n_tokens / math.log(2) / len(data), name))
    return {name: value for value, name in sorted(bits)}


def plan(n, n_ctx, stride):
    done = 0
    while done < n:
        end = min(n, done + stride if done else n_ctx)
        yield max(0, end - n_ctx), end, end - done
        done = end


def contexts__without_overlap(n, n_ctx, stride):
    return [target % n_ctx + 1 for target in range(n)]


def contexts__one_too_few(n, n_ctx, stride):
    return [t - start for start, end, k in plan(n, n_ctx, stride) for t in range(end - k, end)]


def contexts__always_full_behind_the_first_window(n, n_ctx, stride):
    return [min(target + 1, n_ctx) for target in range(n)]  # as with a stride of 1


def contexts__everything_before(n, n_ctx, stride):
    return [target + 1 for target in range(n)]


def contexts__scores_whole_windows(n, n_ctx, stride):
    return [t - start + 1 for start, end, _ in plan(n, n_ctx, stride) for t in range(start, end)]


def contexts__windows_of_a_stride(n, n_ctx, stride):
    return [target % stride + 1 for target in range(n)]


def contexts__last_window_is_short(n, n_ctx, stride):
    found = []
    for start in range(0, n, stride):
        first = 0 if start == 0 else n_ctx - stride
        found += [i + 1 for i in range(first, n_ctx)]
    return found[:n]


def contexts__a_window_each(n, n_ctx, stride):
    return [end - start for start, end, _ in plan(n, n_ctx, stride)]


def contexts__right__by_arithmetic(n, n_ctx, stride):
    found = []
    for target in range(n):
        late = max(0, -(-(target + 1 - n_ctx) // stride)) if target >= n_ctx else 0
        end = min(n, n_ctx + late * stride)
        found.append(target + 1 - max(0, end - n_ctx))
    return found


def spelled(next_p, tokens, rest, ids=(), add=sum, asked=lambda ids: ids):
    """Recur as the solution does, with one thing or another bent."""
    if not rest:
        return 1.0
    p = next_p(asked(ids))
    ways = [
        p[i] * spelled(next_p, tokens, rest[len(token) :], (*ids, i), add, asked)
        for i, token in enumerate(tokens)
        if rest.startswith(token)
    ]
    return add(ways) if ways else 0.0


def word_probability__likeliest_spelling(next_p, tokens, word):
    return spelled(next_p, tokens, word, add=max)


def word_probability__forgets_what_was_written(next_p, tokens, word):
    return spelled(next_p, tokens, word, asked=lambda ids: ())


def word_probability__knows_the_last_token_only(next_p, tokens, word):
    return spelled(next_p, tokens, word, asked=lambda ids: ids[-1:])


def word_probability__longest_token_first(next_p, tokens, word):
    p, ids = 1.0, ()
    while word:
        fits = [i for i, token in enumerate(tokens) if word.startswith(token)]
        if not fits:
            return 0.0
        best = max(fits, key=lambda i: len(tokens[i]))
        p *= next_p(ids)[best]
        ids, word = (*ids, best), word[len(tokens[best]) :]
    return p


def word_probability__one_token_words(next_p, tokens, word):
    p = next_p(())
    return sum(p[i] for i, token in enumerate(tokens) if token == word)


def word_probability__first_token_alone(next_p, tokens, word):
    p = next_p(())
    return sum(p[i] for i, token in enumerate(tokens) if word.startswith(token))


def word_probability__adds_along_a_spelling(next_p, tokens, word, ids=()):
    if not word:
        return 0.0
    p = next_p(ids)
    fits = [i for i, token in enumerate(tokens) if word.startswith(token)]
    return sum(
        p[i] + word_probability__adds_along_a_spelling(
            next_p, tokens, word[len(tokens[i]) :], (*ids, i))
        for i in fits
    )  # fmt: skip


def word_probability__also_longer_words(next_p, tokens, word, ids=()):
    if not word:
        return 1.0
    p, again = next_p(ids), word_probability__also_longer_words
    return sum(
        p[i] * again(next_p, tokens, word[len(token) :], (*ids, i))
        for i, token in enumerate(tokens)
        if word.startswith(token) or token.startswith(word)
    )


def word_probability__right__by_ends(next_p, tokens, word):
    """Keep, for each place in the word, the ways that reach it."""
    reached = {0: [((), 1.0)]}
    for place in range(len(word)):
        for ids, p in reached.pop(place, []):
            after = next_p(ids)
            for i, token in enumerate(tokens):
                if word.startswith(token, place):
                    end = place + len(token)
                    reached.setdefault(end, []).append(((*ids, i), p * after[i]))
    return math.fsum(p for _, p in itertools.chain(reached.get(len(word), [])))
