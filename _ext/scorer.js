/* Sphinx's search with sections as targets: ranked by title, definitions and how often they say it;
   chapters before exercises, glossary and API. It runs from file:// too, as nothing is fetched. */
const SYNONYMS = {
  tldr: "TL;DR", bpe: "byte-pair", "byte pair encoding": "byte-pair", "byte level bpe": "byte-level BPE",
  "nucleus sampling": "nucleus", "skip connection": "residual", "residual connection": "residual",
  "layer normalization": "LayerNorm", "layer norm": "LayerNorm", "number of parameters": "four sizes",
  "model sizes": "four sizes", "mixed precision": "bfloat16", bf16: "bfloat16", "tied embeddings": "weight tying",
  warmup: "learning rate up", "warm up": "learning rate up", "learning rate schedule": "learning rate", "lr schedule": "learning rate",
  "multi head attention": "several heads", "multihead attention": "several heads",
  "positional encoding": "sinusoids", "position encoding": "sinusoids", sinusoidal: "sinusoids",
  mlm: "masked language model", "key value cache": "KV cache", "mini batch": "batch",
  overfitting: "more epochs", "encoder decoder": "encoder", resuming: "checkpoint", resume: "checkpoint",
  sqrt: "scores are divided", "square root": "scores are divided",
};
const plain = text => text.toLowerCase().replace(/[_-]/g, " ").trim();
const markup = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const parts = text => plain(text).split(/[^\p{L}\p{N}]+/u).filter(Boolean);
const starts = words => new RegExp(`(?<![\\p{L}\\p{N}])${words.join("[^\\p{L}\\p{N}]{1,3}")}`, "giu");

// Sphinx asks this function for the words of a query, once for all of them, before it scores.
var splitQuery = query => Scorer.words = parts(SYNONYMS[plain(query)] ?? query);

var Scorer = {
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2, words: [],
  score: item => {  // also completes the item: address, heading, and what is shown below it
    const { docnames, sections } = Search._index;
    const section = sections[docnames.indexOf(item[0])];
    const [page, id] = item[0].split("#");
    const isObject = item[3] !== null, isTerm = item[2].startsWith("#term-");
    item[0] = page;
    item[2] ||= id ? "#" + id : "";
    if (isTerm) item[1] = item[2].slice(6).replaceAll("-", " ");
    else if (!isObject) item[1] = markup(section.title);
    const weight = isTerm ? 0.07 : isObject ? 0.2 : section.weight;
    const { words } = Scorer, phrase = starts(words), text = plain(section.text);
    const same = title => parts(title).join(" ").replace(/s$/, "") === words.join(" ").replace(/s$/, "");
    const count = what => (text.match(what) ?? []).length;
    let score = 9 * Math.log2(1 + count(phrase));
    for (const word of words) score += 3 * Math.log2(1 + count(starts([word]))) / words.length;
    if (same(item[1])) score += 50;
    if (plain(item[1]).search(phrase) >= 0) score += 40;
    else if (words.every(word => plain(item[1]).includes(word))) score += 20;
    if (section.defined.some(same)) score += 30;
    if (section.code.some(same)) score += 30;
    if (section.first.some(same)) score += 15;
    const near = Math.max(0, isTerm ? 0 : text.search(phrase));
    const from = near > 60 ? section.text.indexOf(" ", near - 60) : 0;
    const start = from > 0 ? "… " : "";
    const shown = isTerm || isObject ? "" : start + section.text.slice(from, from + 170).replace(/\s\S*$/, "") + " …";
    item[3] = `<p class="context"><b>${markup(section.page)}</b> ${markup(shown)}</p>`;
    return weight * (score + 1) - docnames.indexOf(page) / 1e4;
  },
};
