// What the report gains with JavaScript: a theme to choose, one page a benchmark, tables that sort and filter, tips.
// Nothing is fetched, and nothing that is said depends on it.
(() => {
"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, given = {}, ...children) => {
  const { aria = {}, ...props } = given;
  const element = Object.assign(document.createElement(tag), props);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
};

// ------------------------------------------------------------------------------------------------ bar

const themes = make("select", { aria: { label: "Colours" } },
  ...["automatic", "light", "dark"].map((name) => make("option", { value: name, textContent: name })));
themes.value = document.documentElement.dataset.theme;
themes.addEventListener("change", () => window.setTheme(themes.value));
document.querySelector(".bar").append(themes);

const contents = document.getElementById("contents");
document.addEventListener("click", (event) => {
  if (!contents.contains(event.target) || event.target.closest("a")) contents.open = false;
});
contents.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !contents.open) return;
  contents.open = false;
  contents.querySelector("summary").focus();
});

// ------------------------------------------------------------------------------------------------ one page a benchmark

const title = document.title;

function route(scroll) {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const article = target && target.closest("article.benchmark");
  document.body.classList.toggle("one", Boolean(article));
  for (const other of all("article.benchmark")) {
    other.classList.toggle("current", other === article);
    other.querySelector("h3")[other === article ? "setAttribute" : "removeAttribute"]("aria-level", "1");
  }
  document.title = article ? `${article.querySelector("h3").textContent}: ${title}` : title;
  if (!target) return;
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (!scroll) return;
  if (target === article) {
    window.scrollTo(0, 0);
    article.querySelector("h3").focus({ preventScroll: true });
  } else {
    target.scrollIntoView();
  }
}

window.addEventListener("hashchange", () => route(true));
route(Boolean(location.hash));

let closed = [];
window.addEventListener("beforeprint", () => {
  closed = all("main details:not([open])");
  for (const part of closed) part.open = true;
});
window.addEventListener("afterprint", () => { for (const part of closed) part.open = false; });

// ------------------------------------------------------------------------------------------------ tables

const NUMBER = /[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?/i;
const numberOf = (cell) => {
  const found = (cell.dataset.v ?? cell.textContent).replaceAll("−", "-").match(NUMBER);
  return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
};
const words = (text) => text.toLowerCase().replaceAll("−", "-");
const MANY = 12; // values of a column that a list to choose from still makes easier

function tools(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const column = (i) => rows.map((row) => row.cells[i]);
  const filters = [];
  const apply = () => {
    let shown = 0;
    for (const row of rows) {
      row.hidden = !filters.every((accepts) => accepts(row));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };

  function sort(i, descending) {
    const cells = column(i);
    const numeric = cells.every((cell) => !cell.textContent.trim() || cell.dataset.v !== undefined
      || !Number.isNaN(numberOf(cell)) && /^[-−+≤\[\d]/.test(cell.textContent.trim()));
    const value = (row) => numeric ? numberOf(row.cells[i]) : row.cells[i].textContent.trim();
    const missing = (v) => numeric ? Number.isNaN(v) : v === "";
    const keyed = rows.map((row, place) => ({ row, place, v: value(row) }));
    keyed.sort((a, b) => missing(a.v) - missing(b.v)
      || (missing(a.v) ? 0 : (a.v > b.v) - (a.v < b.v)) * (descending ? -1 : 1) || a.place - b.place);
    body.append(...keyed.map(({ row }) => row));
  }

  heads.forEach((head, i) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      for (const other of heads) other.removeAttribute("aria-sort");
      table.classList.toggle("sorted", now !== "descending");
      if (now === "descending") body.append(...rows); // the third click: as it was
      else {
        head.setAttribute("aria-sort", now ? "descending" : "ascending");
        sort(i, Boolean(now));
      }
    });
    head.replaceChildren(button);
  });

  const caption = table.caption.textContent;
  const search = make("input", { type: "search", placeholder: "filter", aria: { label: `Filter rows: ${caption}` } });
  search.addEventListener("input", apply);
  filters.push((row) => words(search.value).split(/\s+/).every((word) => words(row.textContent).includes(word)));
  const box = make("div", { className: "tools" }, search);

  function choose(label, values, accepts) {
    const select = make("select", { aria: { label: `${label}: ${caption}` } },
      make("option", { value: "", textContent: `${label}: all` }),
      ...values.map((value) => make("option", { value, textContent: value })));
    select.addEventListener("change", apply);
    filters.push((row) => !select.value || accepts(row, select.value));
    box.append(select);
  }

  heads.forEach((head, i) => {
    const kind = head.className;
    if (!["key", "name", "verdict"].includes(kind)) return;
    const said = (cell) => kind === "verdict" ? cell.textContent.split(/[,:]/)[0] : cell.textContent;
    const values = [...new Set(column(i).map(said))].filter(Boolean);
    if (values.length > 1 && values.length <= MANY && values.length < rows.length) {
      choose(head.textContent, values, (row, value) => said(row.cells[i]) === value);
    }
  });
  const levels = [...new Set(all("[data-level]", body).map((cell) => cell.dataset.level))].sort();
  if (levels.length) {
    choose("verdict", levels, (row, value) => all("[data-level]", row).some((cell) => cell.dataset.level === value));
  }

  const count = make("output", { className: "count" });
  box.append(count);
  table.closest(".scroll").before(box);
  apply();
}

for (const table of all("table.grid")) tools(table);

// ------------------------------------------------------------------------------------------------ figures

const tip = document.getElementById("tip");
const NEAR = 12; // px from a mark that still count as on it
let marked = null;

function hide() {
  tip.classList.remove("shown");
  tip.textContent = "";
  if (marked) marked.classList.remove("here");
  marked = null;
}

function showTip(mark, words) {
  if (mark === marked) return;
  hide();
  marked = mark;
  mark.classList.add("here");
  tip.textContent = words;
  tip.classList.add("shown");
  const at = mark.getBoundingClientRect(), box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, at.left + at.width / 2 - box.width / 2), document.documentElement.clientWidth - box.width - 4);
  const above = at.top - box.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 48 ? above : at.bottom + 8}px`;
}

function figure(svg) {
  const tips = new Map();
  for (const said of all("title", svg)) {
    tips.set(said.parentElement, said.textContent);
    said.remove(); // or the browser would show it as well
  }
  if (!tips.size) return;
  const marks = [...tips.keys()];
  // A mark, its interval and the paper's diamond say the same: one stop.
  const stops = marks.filter((mark, i) => i === 0 || tips.get(mark) !== tips.get(marks[i - 1]));
  let here = -1;
  const middle = (mark) => {
    const { left, top, width, height } = mark.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  };
  const go = (i) => {
    here = Math.min(Math.max(i, 0), stops.length - 1);
    stops[here].scrollIntoView({ block: "nearest", inline: "nearest" });
    showTip(stops[here], tips.get(stops[here]));
  };

  // The nearest mark above (-1) or below (1), rather straight than far.
  function vertical(direction) {
    const [x, y] = middle(stops[here]);
    let best = here, least = Infinity;
    stops.forEach((mark, i) => {
      const [a, b] = middle(mark), way = (b - y) * direction;
      const cost = way + 4 * Math.abs(a - x);
      if (way > 2 && cost < least) [best, least] = [i, cost];
    });
    go(best);
  }

  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "application");
  svg.setAttribute("aria-roledescription", "figure, arrow keys go from mark to mark");
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(Math.max(here, 0)); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const moves = {
      ArrowRight: () => go(here + 1), ArrowLeft: () => go(here - 1), Home: () => go(0), End: () => go(stops.length - 1),
      ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1), Escape: hide,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    if (here < 0 && event.key !== "Escape") go(0);
    else moves[event.key]();
  });

  const pointed = (event) => {
    let mark = document.elementsFromPoint(event.clientX, event.clientY).find((under) => tips.has(under));
    if (!mark) {
      let least = NEAR;
      for (const other of all(":scope > circle, :scope > polygon", svg)) {
        if (!tips.has(other)) continue;
        const [x, y] = middle(other), away = Math.hypot(x - event.clientX, y - event.clientY);
        if (away < least) [mark, least] = [other, away];
      }
    }
    if (mark) showTip(mark, tips.get(mark));
    else if (event.pointerType === "mouse" || event.type === "pointerdown") hide();
  };
  svg.addEventListener("pointermove", pointed);
  svg.addEventListener("pointerdown", pointed);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });

  const list = make("details", {}, make("summary", { textContent: `The ${stops.length} numbers of this figure` }));
  list.addEventListener("toggle", () => {
    if (list.children.length < 2) {
      list.append(make("ul", { className: "notes" }, ...stops.map((mark) => make("li", { textContent: tips.get(mark) }))));
    }
  });
  svg.closest("figure").append(list);
}

for (const svg of all("figure svg")) figure(svg);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
window.addEventListener("scroll", () => {
  if (marked && marked.ownerSVGElement !== document.activeElement) hide(); // the keyboard scrolls to its mark itself
}, { passive: true });
})();
