"""Answers to the exercises of chapter 2: the mistakes that people make, and other right ones.

Each function is named after the answer that it stands in for and what is wrong with it:
`mend_ids__the_other_way_round` replaces `mend_ids`. See course/mutants.py.
"""

import codecs
import random
from itertools import islice, pairwise

import miniweb
from gpt2.tokenizer import (
    END_OF_TEXT,
    Codec,
    build_vocab,
    bytes_to_unicode,
    count_pieces,
    merge_by_rank,
    train_merges,
)

TEXTS = [document.text for document in islice(miniweb.documents(seed=1), 600)]
CODEC = Codec(train_merges(count_pieces(TEXTS), 400))
STRANGE = ["'The", "'the", "a  the", "a\r\nb", "a\tb", "e\u0301", " a", "a ", END_OF_TEXT]


def mend_ids__leaves_all_as_it_is(ids):
    return list(ids)


def mend_ids__the_other_way_round(ids):
    order = list(bytes_to_unicode())
    return [order[i] if i < 256 else i for i in ids]


def mend_ids__code_point_of_the_name(ids):
    return [ord(bytes_to_unicode()[i]) if i < 256 else i for i in ids]


def mend_ids__of_the_first_byte_of_a_character(ids):
    return [CODEC.encode(chr(i))[0] if i < 256 else i for i in ids]


def mend_ids__starts_at_the_first_printable_byte(ids):
    return [i - 33 if 33 <= i < 256 else i for i in ids]


def mend_ids__moves_the_merged_ones_too(ids):
    order = list(bytes_to_unicode())
    return [order.index(i % 256) for i in ids]


def mend_ids__drops_the_merged_ones(ids):
    to_id = {byte: i for i, byte in enumerate(bytes_to_unicode())}
    return [to_id[i] for i in ids if i in to_id]


def mend_ids__stops_before_255(ids):
    to_id = {byte: i for i, byte in enumerate(bytes_to_unicode())}
    return [to_id[i] if i < 255 else i for i in ids]


def mend_ids__works_on_the_original(ids):
    to_id = {byte: i for i, byte in enumerate(bytes_to_unicode())}
    for place, i in enumerate(ids):
        ids[place] = to_id.get(i, i)
    return ids


def mend_ids__returns_nothing(ids):
    return None


def mend_ids__right__by_the_vocabulary(ids):
    vocab = build_vocab([])
    return [vocab[bytes([i])] if i < 256 else i for i in ids]


def mend_ids__right__by_search(ids):
    order = list(bytes_to_unicode())
    return tuple(order.index(i) if i < 256 else i for i in ids)


def first(encode, tried, same=lambda encode, text: list(encode(text)) == CODEC.encode(text)):
    """Return the first text that fails, or None."""
    return next((text for text in tried if not same(encode, text)), None)


def find_difference__documents_only(encode):
    return first(encode, TEXTS)


def find_difference__strange_texts_only(encode):
    return first(encode, STRANGE)


def find_difference__no_special_string(encode):
    return first(encode, STRANGE[:-1] + TEXTS)


def find_difference__no_contractions(encode):
    return first(encode, STRANGE[2:] + TEXTS)


def find_difference__no_blanks_in_a_row(encode):
    return first(encode, [*STRANGE[:2], *STRANGE[3:], *TEXTS])


def find_difference__no_ends_of_lines(encode):
    return first(encode, [*STRANGE[:3], *STRANGE[4:], *TEXTS])


def find_difference__asks_whether_the_text_comes_back(encode):
    def comes_back(encode, text):
        return CODEC.decode(encode(text)) == text

    return first(encode, STRANGE + TEXTS, comes_back)


def find_difference__counts_the_tokens_only(encode):
    def as_many(encode, text):
        return len(encode(text)) == len(CODEC.encode(text))

    return first(encode, STRANGE + TEXTS, as_many)


def find_difference__suspects_everyone(encode):
    return find_difference__right__all_at_once(encode) or "Hello"


def find_difference__returns_the_ids(encode):
    text = find_difference__right__all_at_once(encode)
    return None if text is None else encode(text)


def find_difference__says_true(encode):
    return find_difference__right__all_at_once(encode) is not None


def find_difference__right__all_at_once(encode):
    return first(encode, TEXTS + STRANGE)


def find_difference__right__random_strings(encode):
    rng = random.Random(3)
    parts = [*"aehist'TH .?\t\né", "\u0301", "\r\n", "the", "The", " was", END_OF_TEXT]
    return first(encode, ("".join(rng.choices(parts, k=6)) for _ in range(1500)))


def ids_of(codec, texts):
    return {i for text in texts for i in codec.encode(text)}


def unused__counts_the_bytes(codec, texts):
    return sorted(set(range(256 + len(codec.merges))) - ids_of(codec, texts))


def unused__counts_the_end_of_text(codec, texts):
    return sorted(set(range(256, codec.n_vocab)) - ids_of(codec, texts))


def unused__looks_for_letters(codec, texts):
    merged = range(256, 256 + len(codec.merges))
    return [i for i in merged if not any(codec.tokens[i] in text.encode() for text in texts)]


def unused__joins_the_texts_by_new_lines(codec, texts):
    used = set(codec.encode("\n".join(texts)))
    return [i for i in range(256, 256 + len(codec.merges)) if i not in used]


def unused__looks_in_a_list_of_lists(codec, texts):
    used = [codec.encode(text) for text in texts]
    return [i for i in range(256, 256 + len(codec.merges)) if i not in used]


def unused__joins_the_texts(codec, texts):
    return unused__right__by_sets(codec, ["".join(texts)])


def unused__the_used_ones(codec, texts):
    used = ids_of(codec, texts)
    return [i for i in range(256, 256 + len(codec.merges)) if i in used]


def unused__first_text_only(codec, texts):
    return unused__right__by_sets(codec, texts[:1])


def unused__lets_the_special_string_parse(codec, texts):
    used = {i for text in texts for i in codec.encode(text, {END_OF_TEXT})}
    return [i for i in range(256, codec.n_vocab) if i not in used]


def unused__tokens_for_ids(codec, texts):
    return [codec.tokens[i] for i in unused__right__by_sets(codec, texts)]


def unused__how_many(codec, texts):
    return len(unused__right__by_sets(codec, texts))


def unused__not_in_order(codec, texts):
    return unused__right__by_sets(codec, texts)[::-1]


def unused__forgets_the_last_merge(codec, texts):
    return sorted(set(range(256, 255 + len(codec.merges))) - ids_of(codec, texts))


def unused__right__by_sets(codec, texts):
    return sorted(set(range(256, 256 + len(codec.merges))) - ids_of(codec, texts))


def unused__right__by_the_merges(codec, texts):
    ids = [codec.vocab[left + right] for left, right in codec.merges]
    seen = ids_of(codec, texts)
    return tuple(i for i in ids if i not in seen)


def spans__adds_up_decoded_tokens(tokens):
    pairs, start = [], 0
    for token in tokens:
        end = start + len(token.decode(errors="replace"))
        pairs.append((start, end))
        start = end
    return pairs


def spans__ignores_what_is_broken(tokens):
    pairs, start = [], 0
    for token in tokens:
        end = start + len(token.decode(errors="ignore"))
        pairs.append((start, end))
        start = end
    return pairs


def spans__places_of_bytes(tokens):
    pairs, start = [], 0
    for token in tokens:
        pairs.append((start, start + len(token)))
        start += len(token)
    return pairs


def spans__gives_a_character_to_the_token_that_ends_it(tokens):
    decoder, pairs, start = codecs.getincrementaldecoder("utf-8")(), [], 0
    for token in tokens:
        end = start + len(decoder.decode(token))
        pairs.append((start, end))
        start = end
    return pairs


def spans__gives_a_character_to_the_token_that_begins_it(tokens):
    pairs, start = [], 0
    for token in tokens:
        end = start + sum(byte & 0xC0 != 0x80 for byte in token)
        pairs.append((start, end))
        start = end
    return pairs


def spans__last_character_as_the_end(tokens):
    return [(start, end - 1) for start, end in spans__right__by_lead_bytes(tokens)]


def spans__takes_every_fffd_for_garbage(tokens):
    pairs, data = [], b""
    for token in tokens:
        before = data.decode(errors="replace")
        data += token
        after = data.decode(errors="replace")
        pairs.append((len(before) - before.endswith("\ufffd"), len(after)))
    return pairs


def spans__looks_for_the_same_bytes(tokens):
    data = b"".join(tokens)
    char_of = [i for i, char in enumerate(data.decode()) for _ in char.encode()]
    places = [(data.find(token), len(token)) for token in tokens]
    return [(char_of[at], char_of[at + n - 1] + 1) for at, n in places]


def spans__three_bytes_a_character(tokens):
    pairs, byte, widths = [], 0, []
    for char in b"".join(tokens).decode():
        widths += [len(widths)] * (1 if char.isascii() else 3)
    place = {spot: n for n, spot in enumerate(dict.fromkeys(widths))}
    for token in tokens:
        last = min(byte + len(token), len(widths)) - 1
        pairs.append((place[widths[min(byte, len(widths) - 1)]], place[widths[last]] + 1))
        byte += len(token)
    return pairs


def spans__right__by_lead_bytes(tokens):
    pairs, seen = [], 0
    for token in tokens:
        leads = [byte & 0xC0 != 0x80 for byte in token]
        pairs.append((seen if leads[0] else seen - 1, seen + sum(leads)))
        seen += sum(leads)
    return pairs


def spans__right__character_by_character(tokens):
    borders = [0]
    for char in b"".join(tokens).decode():
        borders.append(borders[-1] + len(char.encode()))
    pairs, byte = [], 0
    for token in tokens:
        end = byte + len(token)
        start_at = max(i for i, border in enumerate(borders) if border <= byte)
        pairs.append([start_at, min(i for i, border in enumerate(borders) if border >= end)])
        byte = end
    return pairs


def merged(ranks, token, key=lambda rank, place: (rank, place)):
    """Merge one pair at a time, the one with the smallest key first: bytes -> tokens."""
    word = [bytes([byte]) for byte in token]
    while known := [(key(ranks[p], i), i) for i, p in enumerate(pairwise(word)) if p in ranks]:
        i = min(known)[1]
        word[i : i + 2] = [word[i] + word[i + 1]]
    return word


def recovered(tokens, split):
    """Recover with another way to split a token, and refuse what has not two parts."""
    ranks = {}
    for token in tokens:
        word = split(ranks, token)
        if len(word) != 2:
            raise ValueError(f"{token!r} is not made of two tokens")
        ranks[word[0], word[1]] = len(ranks)
    return list(ranks)


def in_two(ranks, token, last=False, shortest=False):
    """Split into two known tokens by length alone; into nothing if there is no such place."""
    known = {bytes([byte]) for byte in range(256)} | {one + other for one, other in ranks}
    places = [n for n in range(1, len(token)) if {token[:n], token[n:]} <= known]
    if token in known or not places:
        return []
    n = places[-1 if last else 0]
    return [token[:n], token[n:]]


def recover_merges__longest_token_on_the_left(tokens):
    return recovered(tokens, lambda ranks, token: in_two(ranks, token, last=True))


def recover_merges__longest_token_on_the_right(tokens):
    return recovered(tokens, in_two)


def recover_merges__the_last_byte_apart(tokens):
    return [(token[:-1], token[-1:]) for token in tokens]


def recover_merges__leftmost_pair_first(tokens):
    return recovered(tokens, lambda ranks, token: merged(ranks, token, lambda rank, i: i))


def recover_merges__last_learned_first(tokens):
    return recovered(tokens, lambda ranks, token: merged(ranks, token, lambda rank, i: (-rank, i)))


def recover_merges__from_right_to_left(tokens):
    return recovered(tokens, lambda ranks, token: merged(ranks, token, lambda rank, i: (rank, -i)))


def recover_merges__refuses_nothing(tokens):
    ranks = {}
    for token in tokens:
        word = merged(ranks, token)
        ranks[word[0], b"".join(word[1:])] = len(ranks)
    return list(ranks)


def recover_merges__leaves_out_what_does_not_fit(tokens):
    ranks = {}
    for token in tokens:
        word = merged(ranks, token)
        if len(word) == 2:
            ranks[word[0], word[1]] = len(ranks)
    return list(ranks)


def recover_merges__takes_a_token_twice(tokens):
    merges = recovered(list(dict.fromkeys(tokens)), merged)
    made = {one + other: (one, other) for one, other in merges}
    return [made[token] for token in tokens]


def recover_merges__knows_all_tokens_from_the_start(tokens):
    pairs = recovered(sorted(set(tokens), key=len), in_two)
    made = {one + other: (one, other) for one, other in pairs}
    return [made[token] for token in tokens]


def recover_merges__names_no_token(tokens):
    try:
        return recovered(tokens, merged)
    except ValueError:
        raise ValueError("this list is not from a training") from None


def recover_merges__no_empty_list(tokens):
    if not tokens:
        raise ValueError("there are no tokens")
    return recovered(tokens, merged)


def recover_merges__text_for_bytes(tokens):
    return [
        tuple(part.decode(errors="replace") for part in pair) for pair in recovered(tokens, merged)
    ]


def recover_merges__decodes_the_token(tokens):
    def split(ranks, token):
        return merged(ranks, token.decode(errors="replace").encode())

    return recovered(tokens, split)


def recover_merges__works_on_the_original(tokens):
    tokens[:] = recovered(tokens, merged)
    return tokens


def recover_merges__right__by_the_chapter(tokens):
    return recovered(tokens, lambda ranks, token: merge_by_rank(ranks, token))


def recover_merges__right__by_trying_both_sides(tokens):
    """The last merge inside a token joins two whose own merges all came before: try each place."""
    merges, made = [], set()
    for token in tokens:
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        pairs = [(token[:n], token[n:]) for n in range(1, len(token))]
        whole = [list(pair) for pair in pairs if merged(ranks, token) == list(pair)]
        if token in made or not whole:
            raise ValueError(f"there is no merge for {token!r}")
        merges.append(tuple(whole[0]))
        made.add(token)
    return [list(pair) for pair in merges]
