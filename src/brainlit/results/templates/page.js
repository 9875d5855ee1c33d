"use strict";
// What the page can do without: sort a table, copy a text, open what a link leads to, fold everything out on paper.

// The first number of a cell; a cell without one ("–") goes last, whichever way is sorted.
function numberOf(text) {
  const found = text.match(/[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
  return found ? Number(found[0]) : null;
}

function sortTable(table, column, ascending) {
  const head = table.tHead.rows[0].cells[column], isNumber = head.classList.contains("num");
  const cell = row => row.cells[column].textContent.trim();
  const order = (a, b) => {
    if (!isNumber) return (ascending ? 1 : -1) * a.localeCompare(b, "en", {numeric: true});
    const [x, y] = [numberOf(a), numberOf(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return (ascending ? 1 : -1) * (x - y);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => order(cell(a), cell(b))));
  for (const one of table.tHead.rows[0].cells) one.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      sortTable(table, column, was === "none" ? !head.classList.contains("num") : was === "descending");
    });
  });
}

// What scrolls sideways can be scrolled by keyboard, too.
function letKeysScroll() {
  for (const box of document.querySelectorAll(".wide, pre")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("resize", letKeysScroll);
addEventListener("toggle", letKeysScroll, true);
letKeysScroll();

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.innerText.trim());
  } catch {
    getSelection().selectAllChildren(source);
    if (!document.execCommand("copy")) return "selected: press Ctrl+C";
    getSelection().removeAllRanges();
  }
  return "copied";
}

for (const button of document.querySelectorAll(".paste > button")) {
  const words = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.textContent = await copy(button.nextElementSibling);
    setTimeout(() => { button.textContent = words; }, 2500);
  });
}

// Some browsers go to a folded section without opening it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}
addEventListener("hashchange", openTarget);
for (const link of document.querySelectorAll('a[href^="#"]'))
  link.addEventListener("click", () => setTimeout(openTarget));
openTarget();

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });

const links = new Map([...document.querySelectorAll(".contents a")].map(link => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, {rootMargin: "-20% 0px -75% 0px"});
for (const id of links.keys()) if (document.getElementById(id)) watcher.observe(document.getElementById(id));
