/** Show every arm in the details, or bicubic, the two chosen ones and HR. */
const all = document.querySelector("#all-arms");
all?.addEventListener("change", () => document.body.classList.toggle("all-arms", all.checked));

/** Let a name in a legend show its line alone, in all charts: while it is pointed at, or, once clicked, until the next click. */
const series = [...document.querySelectorAll("[data-series]")];
const names = [...document.querySelectorAll(".legend [data-series]")];
let kept = null;

function highlight(name) {
  for (const one of series) one.classList.toggle("dim", name !== null && one.dataset.series !== name);
}

function keep(name) {
  kept = kept === name ? null : name;
  for (const entry of names) entry.setAttribute("aria-pressed", String(entry.dataset.series === kept));
  highlight(kept);
}

for (const entry of names) {
  const name = entry.dataset.series;
  entry.tabIndex = 0;
  entry.setAttribute("role", "button");
  entry.setAttribute("aria-pressed", "false");
  entry.addEventListener("pointerenter", () => highlight(name));
  entry.addEventListener("pointerleave", () => highlight(kept));
  entry.addEventListener("click", () => keep(name));
  entry.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    keep(name);
  });
}
