/* Small services: light colors on paper; a phone's contents that close when one has chosen; a count of
   right answers, kept in this browser; the Tab key's stops. */
document.addEventListener("DOMContentLoaded", () => {
  const { dataset } = document.documentElement;
  let theme;
  addEventListener("beforeprint", () => { theme = dataset.theme; dataset.theme = "light"; });
  addEventListener("afterprint", () => { dataset.theme = theme; });
  document.addEventListener("click", event => event.target.closest("dialog a")?.closest("dialog").close());
  const questions = [...document.querySelectorAll(".question")];
  if (questions.length) {
    const key = "answers:" + location.pathname.split("/").pop();
    let first = {};  // question number: whether the first answer opened was right
    try { first = JSON.parse(localStorage.getItem(key)) ?? {}; } catch { /* nothing is kept */ }
    const score = document.createElement("p");
    score.className = "score";
    score.setAttribute("role", "status");
    questions.at(-1).after(score);
    const show = () => {
      const right = Object.values(first).filter(Boolean).length, n = Object.keys(first).length;
      score.textContent = n ? `Right at the first try: ${right} of ${n} answered, ${questions.length} in all. ` : "";
      if (!n) return;
      const again = score.appendChild(document.createElement("button"));
      again.textContent = "Start again";
      again.onclick = () => {
        first = {};
        questions.forEach(q => q.querySelectorAll("details").forEach(d => d.open = false));
        keep();
      };
    };
    const keep = () => {
      try { localStorage.setItem(key, JSON.stringify(first)); } catch { /* nothing is kept */ }
      show();
    };
    questions.forEach((question, i) => question.querySelectorAll("details").forEach(answer =>
      answer.addEventListener("toggle", () => {
        if (answer.open && !(i in first)) { first[i] = answer.classList.contains("right"); keep(); }
      })));
    show();
  }
  // What scrolls sideways can be reached by the Tab key; what does not scroll is no stop.
  const wide = document.querySelectorAll(".bd-article :is(pre, table, div.math)");
  const reach = () => wide.forEach(e =>
    e.scrollWidth > e.clientWidth + 1 ? e.tabIndex = 0 : e.removeAttribute("tabindex"));
  addEventListener("resize", reach);
  addEventListener("load", () => {
    reach();
    // The Tab key stops at the copy buttons of code that a reader may want: the package's, the shell's.
    document.querySelectorAll(".copybtn").forEach(button => {
      if (!button.closest(".package, .highlight-bash")) button.tabIndex = -1;
    });
  });
});
