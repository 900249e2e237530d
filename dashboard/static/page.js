// The page works without this; with it, progress moves, texts can be copied, and keys do what the list says.
"use strict";

const rows = [...document.querySelectorAll("[data-row]")];
let here = -1;

function go(step) {
  if (!rows.length) return;
  rows[here]?.classList.remove("here");
  here = Math.min(rows.length - 1, Math.max(0, here + step));
  rows[here].classList.add("here");
  const link = rows[here].querySelector("a");
  (link ?? rows[here]).scrollIntoView({ block: "nearest" });
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

for (const button of document.querySelectorAll("[data-opens]")) {
  button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
}

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copies).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
      button.textContent = "Selected";
    }
  });
}

function show(section, status) {
  for (const at of section.querySelectorAll("[data-status]")) {
    const value = status[at.dataset.status];
    if (value === undefined) continue;
    if (at.matches("progress")) at.value = value;
    else if (at.dataset.status === "counts") {
      at.replaceChildren(...Object.entries(value).map(([name, count]) => {
        const item = document.createElement("li"), figure = document.createElement("b");
        figure.textContent = count.toLocaleString("en");
        item.append(figure, " " + name);
        return item;
      }));
    } else {
      at.textContent = typeof value === "number" ? value.toLocaleString("en") : value;
      if (at.dataset.status === "state") at.className = "state " + value;
    }
  }
}

for (const section of document.querySelectorAll("[data-events]")) {
  const events = new EventSource(section.dataset.events);
  events.addEventListener("message", (event) => {
    const status = JSON.parse(event.data);
    show(section, status);
    if (status.over) {
      events.close();
      if (section.dataset.then === "reload") location.reload();
    }
  });
}
