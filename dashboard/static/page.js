// The page works without this; with it, pages follow what happens, texts can be copied, and keys do what the list says.
"use strict";

const rows = () => [...document.querySelectorAll("[data-row]")];

function go(step) {
  const all = rows(), here = all.findIndex((row) => row.matches(".here"));
  if (!all.length) return;
  all[here]?.classList.remove("here");
  const next = all[Math.min(all.length - 1, Math.max(0, here + step))];
  next.classList.add("here");
  const link = next.querySelector("a");
  (link ?? next).scrollIntoView({ block: "nearest" });
  link?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  const does = {
    j: () => go(1),
    k: () => go(-1),
    "/": () => document.getElementById("search")?.focus(),
    "?": () => document.getElementById("keys").showModal(),
    u: () => [...document.querySelectorAll("[data-up]")].pop()?.click(),
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});

async function copy(button) {
  const source = document.getElementById(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-opens], [data-copies]");
  if (button?.dataset.opens) document.getElementById(button.dataset.opens).showModal();
  if (button?.dataset.copies) copy(button);
});

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.form.querySelectorAll("[name=id]")) box.checked = event.target.checked;
});

// A page that says so is fetched again in so many seconds, unless somebody is at work on it.
const BUSY = "input:focus, textarea:focus, select:focus, input:checked, details[open], .here";

function refresh() {
  const main = document.getElementById("main"), seconds = Number(main.dataset.refresh);
  if (!seconds) return;
  setTimeout(async () => {
    if (!document.hidden && !main.querySelector(BUSY)) {
      try {
        const answer = await fetch(location.href);
        if (answer.redirected) return location.reload();
        const text = await answer.text();
        if (!main.querySelector(BUSY)) main.replaceWith(new DOMParser().parseFromString(text, "text/html").getElementById("main"));
      } catch { /* the page is unavailable: it is tried again */ }
    }
    refresh();
  }, 1000 * seconds);
}
refresh();
