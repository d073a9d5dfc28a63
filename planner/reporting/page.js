"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const text = (i) => (i < 0 ? "" : data.strings[i]);
  const tip = document.getElementById("tip");
  const ROW = 31; // px: height of a table row with its border
  const COLUMNS = [
    ["#", "number", "4.5rem"], ["Node", "name", "auto"], ["Operator", "op", "9.5rem"], ["Weight", "weight", "6.5rem"],
    ["Activation", "activation", "7rem"], ["Placement", "target", "7rem"], ["SQNR", "sqnr", "5.5rem"],
    ["Rule", "rule", "10rem"], ["Reason", "reason", "auto"],
  ];
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // Theme: auto follows the system; the choice is kept where the browser lets a file keep anything.
  const theme = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const setTheme = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = "Theme: " + name;
    try { localStorage.setItem("planner-theme", name); } catch { /* private mode */ }
  };
  let stored = "auto";
  try { stored = localStorage.getItem("planner-theme") || "auto"; } catch { /* private mode */ }
  setTheme(themes.includes(stored) ? stored : "auto");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "auto";
    setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
  });

  class NodeTable {
    constructor(place) {
      this.place = place;
      this.columns = data.rows[place.dataset.nodes];
      this.count = this.columns.name.length;
      this.shown = COLUMNS.filter(([, key]) => this.used(key));
      this.order = { key: "number", down: false };
      this.current = -1;
      this.haystack = null;
      this.build();
      this.refresh();
    }

    used(key) {
      if (key === "number" || key === "name") return true;
      return this.columns[key].some((value) => value !== null && value !== -1);
    }

    value(key, i) {
      if (key === "number") return i + 1;
      if (key === "sqnr") return this.columns.sqnr[i];
      return text(this.columns[key][i]);
    }

    choice(label, key) {
      const values = [...new Set(this.columns[key])].map(text).sort();
      const select = element("select", { "data-filter": key }, element("option", { value: "" }, "all"));
      for (const value of values) select.append(element("option", { value: "=" + value }, value || "none"));
      select.addEventListener("change", () => this.refresh());
      return element("label", {}, label, select);
    }

    build() {
      const label = this.place.dataset.label;
      this.search = element("input", { type: "search", placeholder: "name, operator, rule, reason", spellcheck: "false" });
      this.search.addEventListener("input", () => this.refresh());
      const grow = element("label", { class: "grow" }, "Search", this.search);
      this.counter = element("output", { "aria-live": "polite" });
      const tools = element("div", { class: "tools" }, grow);
      for (const [name, key] of COLUMNS.filter(([, k]) => ["op", "weight", "activation", "target"].includes(k)))
        if (this.used(key)) tools.append(this.choice(name, key));
      tools.append(this.counter);
      this.filters = [...tools.querySelectorAll("select")];

      const group = element("colgroup");
      const head = element("tr");
      for (const [name, key, width] of this.shown) {
        const col = element("col");
        col.style.width = width;
        group.append(col);
        const button = element("button", { type: "button", "data-sort": key }, name);
        button.addEventListener("click", () => {
          this.order = { key, down: this.order.key === key && !this.order.down };
          this.refresh();
        });
        head.append(element("th", { scope: "col" }, button));
      }
      this.head = head;
      this.body = element("tbody");
      this.table = element("table", { "aria-label": "Nodes of " + label }, group, element("thead", {}, head), this.body);
      this.view = element("div", { class: "view", tabindex: "0", role: "region", "aria-label": "Node table of " + label }, this.table);
      this.view.addEventListener("scroll", () => this.draw(), { passive: true });
      this.view.addEventListener("keydown", (event) => this.key(event));
      this.body.addEventListener("click", (event) => {
        const row = event.target.closest("tr[data-at]");
        if (row) this.pick(Number(row.dataset.at), false);
      });
      this.picked = element("p", { class: "picked", "aria-live": "polite" }, "Choose a row to read it in full.");
      this.place.replaceChildren(tools, this.view, this.picked);
    }

    refresh() {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = this.filters.filter((s) => s.value).map((s) => [this.columns[s.dataset.filter], s.value.slice(1)]);
      if (words.length && !this.haystack)
        this.haystack = Array.from({ length: this.count }, (_, i) =>
          ["name", "op", "rule", "reason"].map((key) => this.value(key, i)).join("\n").toLowerCase());
      const rows = [];
      for (let i = 0; i < this.count; i++)
        if (wanted.every(([column, value]) => text(column[i]) === value) && words.every((word) => this.haystack[i].includes(word))) rows.push(i);
      const { key, down } = this.order;
      if (key !== "number") {
        const values = new Map(rows.map((i) => [i, this.value(key, i)]));
        const compare = new Intl.Collator("en", { numeric: true }).compare;
        const rank = (value) => (value === null || value === "" ? 1 : 0); // nothing comes last either way
        rows.sort((a, b) => {
          const x = values.get(a), y = values.get(b);
          if (rank(x) || rank(y)) return rank(x) - rank(y) || a - b;
          const order = key === "sqnr" ? x - y : compare(x, y);
          return (down ? -order : order) || a - b;
        });
      } else if (down) rows.reverse();
      this.rows = rows;
      this.current = -1;
      for (const cell of this.head.children) {
        const button = cell.firstElementChild, mine = button.dataset.sort === key;
        const name = this.shown.find(([, k]) => k === button.dataset.sort)[0];
        button.textContent = name + (mine ? (down ? " ↓" : " ↑") : "");
        if (mine) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      }
      this.table.setAttribute("aria-rowcount", rows.length + 1);
      this.counter.textContent = rows.length === this.count ? `${this.count} nodes` : `${rows.length} of ${this.count} nodes`;
      this.view.scrollTop = 0;
      this.draw();
    }

    // Only the rows in view exist; two padding rows keep the scroll bar true.
    draw() {
      const height = this.view.clientHeight || 416;
      const first = Math.max(0, Math.floor(this.view.scrollTop / ROW) - 8);
      const last = Math.min(this.rows.length, first + Math.ceil(height / ROW) + 16);
      const pad = (rows) => {
        const cell = element("td", { colspan: this.shown.length });
        cell.style.height = rows * ROW + "px";
        return element("tr", { class: "pad", "aria-hidden": "true" }, cell);
      };
      const made = [];
      if (first) made.push(pad(first));
      for (let at = first; at < last; at++) made.push(this.row(at));
      if (last < this.rows.length) made.push(pad(this.rows.length - last));
      if (!this.rows.length) made.push(element("tr", { class: "pad" }, element("td", { colspan: this.shown.length }, "No node matches.")));
      this.body.replaceChildren(...made);
    }

    row(at) {
      const i = this.rows[at];
      const row = element("tr", { "data-at": at, "aria-rowindex": at + 2, class: at === this.current ? "current" : "" });
      for (const [, key] of this.shown) {
        const value = this.value(key, i);
        const cell = element("td");
        if (key === "weight" || key === "activation") {
          const group = value.replace(/^u/, "");
          const known = ["float32", "float16", "int16", "int8", "int4"].includes(group);
          const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
          swatch.style.background = `var(--${known ? group : "none"})`;
          if (value) cell.append(swatch);
        }
        if (key === "target" && value === "off target") cell.className = "offtarget";
        if (key === "name") cell.className = "mono";
        const shown = key === "sqnr" ? (value === null ? "" : value.toFixed(1)) : String(value);
        if (key === "name" || key === "reason" || key === "rule") cell.title = shown;
        cell.append(shown || "–");
        row.append(cell);
      }
      return row;
    }

    key(event) {
      const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 2);
      const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || event.target !== this.view) return;
      event.preventDefault();
      this.pick(Math.min(this.rows.length - 1, Math.max(0, this.current + step)), true);
    }

    pick(at, follow) {
      if (at < 0 || at >= this.rows.length) return;
      this.current = at;
      if (follow) {
        const top = at * ROW, head = this.head.offsetHeight, height = this.view.clientHeight;
        if (top < this.view.scrollTop) this.view.scrollTop = top;
        else if (top + ROW + head > this.view.scrollTop + height) this.view.scrollTop = top + ROW + head - height;
      }
      this.draw();
      this.picked.textContent = describe(this.columns, this.rows[at]);
    }

    reveal(i) {
      this.search.value = "";
      for (const select of this.filters) select.value = "";
      this.order = { key: "number", down: false };
      this.refresh();
      this.view.scrollTop = Math.max(0, i * ROW - this.view.clientHeight / 2);
      this.pick(i, true);
    }
  }

  const describe = (columns, i) => {
    const pair = [columns.weight[i], columns.activation[i]].filter((v) => v >= 0).map(text).join(" / ");
    const sqnr = columns.sqnr.length && columns.sqnr[i] !== null ? `SQNR ${columns.sqnr[i].toFixed(1)} dB` : "";
    return [`${i + 1}. ${text(columns.name[i])}`, text(columns.op[i]), pair || "left as it is", text(columns.target[i]), sqnr,
      text(columns.rule[i]), text(columns.reason[i])].filter(Boolean).join(" · ");
  };

  // A table is built when it comes near the screen, so a report of many rows opens as fast as a small one.
  const tables = new Map();
  const tableOf = (place) => {
    if (!tables.has(place)) tables.set(place, new NodeTable(place));
    return tables.get(place);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      tableOf(entry.target);
    }
  }, { rootMargin: "600px" });
  for (const place of document.querySelectorAll("[data-nodes]")) watcher.observe(place);

  // The strip: pointing names a node, a click finds it in the table.
  for (const strip of document.querySelectorAll("[data-strip]")) {
    const svg = strip.querySelector("svg");
    const columns = data.rows[strip.dataset.strip];
    const nodeAt = (event) => {
      const box = svg.getBoundingClientRect(), d = svg.dataset;
      const x = ((event.clientX - box.left) * d.width) / box.width - d.left;
      return x < 0 || x >= d.plot ? -1 : Math.floor((x * d.count) / d.plot);
    };
    svg.addEventListener("pointermove", (event) => {
      const i = nodeAt(event);
      tip.hidden = i < 0;
      if (i < 0) return;
      tip.textContent = describe(columns, i);
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 10) + "px";
      tip.style.top = event.clientY + 18 + "px";
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("click", (event) => {
      const i = nodeAt(event);
      if (i >= 0) tableOf(strip.parentElement.querySelector(`[data-nodes="${strip.dataset.strip}"]`)).reveal(i);
    });
  }

  // On paper nothing can be opened, so everything is; node tables stay out, they would fill a book.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  document.documentElement.dataset.ready = "yes";
})();
