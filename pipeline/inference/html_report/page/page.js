"use strict";
const photos = [...document.querySelectorAll("[data-compare]")];

/** Show picture `method` of every photo on one side; the other side takes what was there if it showed the same. */
function choose(side, method) {
  const other = side === "left" ? "right" : "left";
  for (const photo of photos) {
    const pictures = [...photo.querySelectorAll(".stage img")];
    const shown = pictures.findIndex((picture) => picture.classList.contains(side));
    if (pictures[method].classList.contains(other)) show(photo, pictures, other, shown);
    show(photo, pictures, side, method);
  }
}

function show(photo, pictures, side, method) {
  const details = [...photo.querySelectorAll(".details")].map((detail) => [...detail.querySelectorAll("div")]);
  for (const group of [pictures, ...details]) {
    group.forEach((picture, number) => picture.classList.toggle(side, number === method));
  }
  photo.querySelector(`select[data-side=${side}]`).value = String(method);
}

for (const photo of photos) {
  const stage = photo.querySelector(".stage");
  const range = photo.querySelector("input[type=range]");
  const place = () => stage.style.setProperty("--split", `${range.value}%`);
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = String((100 * (event.clientX - box.left)) / box.width);
    place();
  };
  range.addEventListener("input", place);
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    follow(event);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  for (const select of photo.querySelectorAll("select")) {
    select.addEventListener("change", () => choose(select.dataset.side, Number(select.value)));
  }
}
