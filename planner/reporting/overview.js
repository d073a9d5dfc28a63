"use strict";
(() => {
  // The matrix of a large report: data in columns, and only the rows in view are in the page.
  const data = JSON.parse(document.getElementById("data").textContent);
  const text = (i) => (i < 0 ? "" : data.strings[i]);
  const ROW = 34; // px: height of a row with its border
  const box = document.getElementById("matrix");
  const body = document.getElementById("rows");
  const before = document.getElementById("before");
  const after = document.getElementById("after");
  const search = document.getElementById("search");
  const only = document.getElementById("only");
  const detail = document.getElementById("detail");
  const count = document.getElementById("count");
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const haystack = data.models.map((model) => text(model.name).toLowerCase());
  let shown = data.models.map((_, i) => i);
  let first = -1;
  let last = -1;

  const cell = (model, target) => {
    const found = model.cells[target];
    if (!found) return element("td", { class: "empty" }, "–");
    const best = found.rows[found.best];
    const status = data.statuses[best[1]];
    const label = data.icons[best[1]] + " " + text(best[0]);
    const button = element("button", { type: "button", class: "cell " + status, title: status + ", " + data.tiers[best[3]] }, label);
    button.addEventListener("click", () => show(model, target));
    return element("td", {}, button);
  };

  const show = (model, target) => {
    const found = model.cells[target];
    const rows = found.rows.map(([precision, status, reason, tier, worst, advice]) => element("tr", {},
      element("th", { scope: "row" }, text(precision)), element("td", {}, data.icons[status] + " " + data.statuses[status]),
      element("td", {}, data.tiers[tier]), element("td", { class: "num" }, worst === null ? "–" : worst.toFixed(1) + " dB"),
      element("td", {}, text(reason), " ", element("span", { class: "quiet" }, text(advice)))));
    const head = ["Precision", "Status", "Evidence", "Lowest SQNR", "Why"].map((name) => element("th", { scope: "col" }, name));
    detail.replaceChildren(element("h2", {}, text(model.name) + " on " + data.targets[target]),
      element("table", { class: "plain" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
    detail.hidden = false;
    detail.focus();
  };

  const draw = () => {
    const from = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const to = Math.min(shown.length, from + Math.ceil(box.clientHeight / ROW) + 16);
    if (from === first && to === last) return;
    // Rows that stay in view stay in the page: a step of scrolling makes the few that come in.
    const stays = (place) => first >= 0 && place >= first && place < last;
    const row = (place) => {
      const model = data.models[shown[place]];
      return element("tr", { "aria-rowindex": shown[place] + 2 },
        element("th", { scope: "row" }, text(model.name)), ...data.targets.map((_, target) => cell(model, target)));
    };
    const rows = [...body.children];
    const next = [];
    for (let place = from; place < to; place++) if (!stays(place)) next.push([place, row(place)]);
    if (first >= 0) rows.forEach((old, k) => { if (first + k < from || first + k >= to) old.remove(); });
    else body.replaceChildren();
    body.prepend(...next.filter(([place]) => place < first).map(([, made]) => made));
    body.append(...next.filter(([place]) => place >= first).map(([, made]) => made));
    first = from;
    last = to;
    before.style.height = from * ROW + "px";
    after.style.height = (shown.length - to) * ROW + "px";
  };

  const refresh = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = data.statuses.indexOf(only.value);
    shown = data.models.map((_, i) => i).filter((i) => words.every((word) => haystack[i].includes(word)) &&
      (status < 0 || data.models[i].cells.some((found) => found && found.rows[found.best][1] === status)));
    count.textContent = shown.length + " of " + data.models.length + " models";
    box.scrollTop = 0;
    first = last = -1;
    draw();
  };

  box.addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", () => { first = -1; draw(); });
  search.addEventListener("input", refresh);
  only.addEventListener("change", refresh);
  refresh();
})();
