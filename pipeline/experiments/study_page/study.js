"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const pictures = document.getElementById("pictures");
const [left, original, right] = pictures.querySelectorAll("img");
const GAP_PX = 4;
const STORED = `sed-trainer ${study.study}`;
const DOES = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", s: "neither", h: "original", e: "save" };

let state, questions, shownAt;

/** A function that returns numbers in [0, 1) which depend on the text alone. */
function randomOf(text) {
  let sum = 2166136261;
  for (const character of text) sum = Math.imul(sum ^ character.charCodeAt(0), 16777619);
  return () => {
    sum = (sum + 0x9e3779b9) | 0;
    let mixed = Math.imul(sum ^ (sum >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

function shuffled(list, random) {
  const result = [...list];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [result[last], result[other]] = [result[other], result[last]];
  }
  return result;
}

const exchanged = (question) => ({ ...question, left: question.right, right: question.left });

/** What a voter is asked, in order: the same for the same voter. Repeats are of the first half and come in the second. */
function questionsOf(voter) {
  const random = randomOf(study.study + voter);
  const pairs = study.images.flatMap((_, image) =>
    study.arms.flatMap((one, at) => study.arms.slice(at + 1).map((other) => ({ image, left: one, right: other, repeat: false }))),
  );
  const asked = shuffled(pairs, random).slice(0, study.num_questions);
  const placed = asked.map((question) => (random() < 0.5 ? question : exchanged(question)));
  const half = Math.ceil(placed.length / 2);
  const repeats = placed.slice(0, study.num_repeats).map((question) => ({ ...exchanged(question), repeat: true }));
  return [...placed.slice(0, half), ...shuffled([...placed.slice(half), ...repeats], random)];
}

function newVoter() {
  const bytes = [...crypto.getRandomValues(new Uint8Array(8))];
  const voter = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { voter, started: new Date().toISOString(), choices: [] };
}

/** Browsers may refuse to keep data of a page, or of a page from a disk. */
function store(action) {
  try {
    return action(localStorage);
  } catch {
    document.getElementById("warning").hidden = false;
    return null;
  }
}

function keep() {
  store((kept) => {
    kept.setItem(STORED, state.voter);
    kept.setItem(`${STORED} ${state.voter}`, JSON.stringify(state));
  });
}

function begin(voterState) {
  state = voterState;
  questions = questionsOf(state.voter);
  document.getElementById("voter").textContent = state.voter;
  keep();
  show();
}

function show() {
  const number = state.choices.length;
  const isDone = number >= questions.length;
  document.getElementById("ask").hidden = isDone;
  document.getElementById("done").hidden = !isDone;
  document.querySelector("[data-do=next]").hidden = !isDone;
  document.querySelector("progress").max = questions.length;
  document.querySelector("progress").value = number;
  document.getElementById("count").textContent = `${number} of ${questions.length} answered`;
  if (isDone) return;
  const question = questions[number];
  const image = study.images[question.image];
  left.src = image.results[question.left];
  right.src = image.results[question.right];
  original.src = image.original;
  original.classList.add("covered");
  fit();
  shownAt = performance.now();
}

/** Enlarge by the largest whole number that fits, with the original between the results if that costs nothing. */
function fit() {
  if (state.choices.length >= questions.length) return;
  const side = study.images[questions[state.choices.length].image].side_px;
  const fitting = (columns) => {
    const width = (document.documentElement.clientWidth - (columns - 1) * GAP_PX) / columns;
    return Math.max(1, Math.min(study.enlargement, Math.floor(width / side)));
  };
  const fitsThree = 3 * side + 2 * GAP_PX <= document.documentElement.clientWidth;
  const isNarrow = !fitsThree || fitting(2) > fitting(3);
  pictures.classList.toggle("narrow", isNarrow);
  pictures.style.setProperty("--side", `${side * fitting(isNarrow ? 2 : 3)}px`);
}

function choose(chosen) {
  if (state.choices.length >= questions.length) return;
  const { image, left, right, repeat } = questions[state.choices.length];
  const seconds = Math.round(performance.now() - shownAt) / 1000;
  const original_shown = !original.classList.contains("covered");
  state.choices.push({ image, left, right, chosen, repeat, original_shown, seconds });
  keep();
  show();
}

function save() {
  const content = { format: study.votes_format, study: study.study, ...state };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `votes-${study.study.slice(0, 8)}-${state.voter}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function act(name) {
  if (name === "original") {
    // Seen once, it counts as seen: it stays until the next question.
    original.classList.remove("covered");
  } else if (name === "save") {
    save();
  } else if (name === "next") {
    begin(newVoter());
  } else {
    choose(name);
  }
}

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => act(button.dataset.do));
}
document.addEventListener("keydown", (event) => {
  const name = DOES[event.key] ?? DOES[event.key.toLowerCase()];
  // A key that is held must not answer every question.
  if (!name || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  act(name);
});
window.addEventListener("resize", fit);

const voter = store((kept) => kept.getItem(STORED));
begin((voter && store((kept) => JSON.parse(kept.getItem(`${STORED} ${voter}`)))) || newVoter());
