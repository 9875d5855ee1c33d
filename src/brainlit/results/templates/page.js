"use strict";
// What the page can do without: sort and filter a table, name the numbers of a figure, copy a text, open what a link
// leads to, fold everything out on paper.

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

// Tables of many rows: only those that have all the typed words stay, under the headings of their groups.
const MOST_WITHOUT_FILTER = 8;
for (const table of document.querySelectorAll("table")) {
  const lines = [...table.tBodies[0].rows], rows = lines.filter(row => !row.classList.contains("group"));
  if (rows.length <= MOST_WITHOUT_FILTER) continue;
  const label = document.createElement("label"), typed = document.createElement("input");
  const left = document.createElement("span");
  label.className = "filter";
  typed.type = "search";
  typed.autocomplete = "off";
  left.setAttribute("aria-live", "polite");
  label.append("only rows with ", typed);
  const line = document.createElement("div");
  line.className = "filtering";
  line.append(label, left);
  table.parentElement.before(line);
  typed.addEventListener("input", () => {
    const words = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    let heading = null;
    for (const row of lines) {
      if (row.classList.contains("group")) (heading = row).hidden = true;
      else if (heading && !row.hidden) heading.hidden = false;
    }
    const n = rows.filter(row => !row.hidden).length;
    left.textContent = words.length ? `${n} of ${rows.length} rows` : "";
  });
}

// The numbers of a figure, which marks.py placed: the one nearest to pointer or finger, or one after the other by keys.
const NEAR_PX = 24;
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
let hideTip = () => {};

function between(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

function showNumbers(box) {
  const marks = JSON.parse(box.querySelector(".marks").textContent);
  const said = marks.map(mark => mark.slice(4).filter(Boolean));
  const aim = document.createElement("div"), ring = document.createElement("div");
  const values = {role: "slider", "aria-label": "Numbers of this figure", "aria-valuemin": 1, "aria-valuemax": marks.length};
  for (const [name, value] of Object.entries(values)) aim.setAttribute(name, value);
  aim.className = "aim";
  aim.tabIndex = 0;
  ring.className = "ring";
  let at = 0;

  function choose(k) {
    at = k;
    aim.setAttribute("aria-valuenow", k + 1);
    aim.setAttribute("aria-valuetext", said[k].join(". "));
  }

  function show(k) {
    choose(k);
    const [left, top, width, height] = marks[k];
    ring.style.cssText = `left:${left}%;top:${top}%;width:${width}%;height:${height}%`;
    aim.append(ring);
    tip.replaceChildren(...said[k].map((words, line) => {
      const element = document.createElement(line ? "span" : "b");
      element.textContent = words;
      return element;
    }));
    tip.hidden = false;
    const there = ring.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const above = there.top - own.height - 8, middle = there.left + (there.width - own.width) / 2;
    tip.style.left = `${between(middle, 8, Math.max(8, document.documentElement.clientWidth - own.width - 8))}px`;
    tip.style.top = `${above >= 8 ? above : between(there.bottom + 8, 8, Math.max(8, innerHeight - own.height - 8))}px`;
    hideTip = () => { tip.hidden = true; ring.remove(); hideTip = () => {}; };
  }

  // From the pointer to the mark, 0 within it; among several, to the middle of the mark.
  function nearest(event) {
    const whole = box.getBoundingClientRect();
    const [x, y] = [event.clientX - whole.left, event.clientY - whole.top];
    let best = null;
    marks.forEach(([left, top, width, height], k) => {
      const [x0, w] = [left, width].map(share => share / 100 * whole.width);
      const [y0, h] = [top, height].map(share => share / 100 * whole.height);
      const away = Math.hypot(x - between(x, x0, x0 + w), y - between(y, y0, y0 + h));
      const off = Math.hypot(x - x0 - w / 2, y - y0 - h / 2);
      if (away <= NEAR_PX && (!best || away < best.away || (away === best.away && off < best.off)))
        best = {k, away, off};
    });
    return best;
  }

  function follow(event) {
    const found = nearest(event);
    hideTip();
    if (found) show(found.k);
  }

  choose(0);
  box.append(aim);
  box.addEventListener("pointermove", event => { if (event.pointerType === "mouse") follow(event); });
  box.addEventListener("click", follow);
  box.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hideTip(); });
  aim.addEventListener("focus", () => { if (aim.matches(":focus-visible")) { hideTip(); show(at); } });
  aim.addEventListener("blur", () => hideTip());
  const moves = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity};
  aim.addEventListener("keydown", event => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    hideTip();
    show(between(at + moves[event.key], 0, marks.length - 1));
  });
}

for (const script of document.querySelectorAll(".marks")) showNumbers(script.parentElement);
for (const hint of document.querySelectorAll(".hint")) hint.hidden = false;
addEventListener("keydown", event => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", () => hideTip(), true);
addEventListener("pointerdown", event => { if (!event.target.closest(".marked")) hideTip(); });

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
