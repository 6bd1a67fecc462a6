// Numbers to set: a slider with a number entry, and six of them as a matrix.

import { h, number, setAttribute, setText } from "./ui.js";

// A number as it may be written, with a true minus or a comma too; NaN for anything else.
export function parse(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".");
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}

let ranges = 0;

// A slider with a number entry. With a `bound` beyond them its ends move out for a large value, and
// back only when it is told to settle: a thumb must not run away from under a finger.
export function field({ name, label: said, low, high, step, jump, bound, onedit }) {
  let value = 0;
  // What held before the reader began to type: what is typed counts as a whole, or not at all.
  let held = 0;
  const edit = (next) => {
    update(next);
    onedit(next);
  };
  const slider = h("input", {
    type: "range", min: low, max: high, step, "aria-label": said,
    oninput: () => edit(Number(slider.value)),
  });
  const least = () => (bound ? -bound : low);
  const most = () => bound ?? high;
  const show = () => {
    const text = String(Number(value.toFixed(3)));
    if (entry.value !== text) entry.value = text;
  };
  const range = h("span", { class: "range", id: `stn-range-${++ranges}`, role: "alert" });
  const judge = (valid) => {
    setAttribute(entry, "aria-invalid", !valid);
    setText(range, valid ? "" : `From ${[least(), most()].map((v) => number(v, 3)
      .replace(/\.?0+$/, "")).join(" to ")}`);
  };
  const take = (next) => {
    // A number too large for the slider had widened it; no thumb is held while one types.
    [slider.min, slider.max] = [low, high];
    edit(next);
  };
  // Text, since a number field keeps the digits of what is not a number, and says nothing of it.
  const entry = h("input", {
    type: "text", role: "spinbutton", autocomplete: "off", spellcheck: false, enterKeyHint: "done",
    "aria-label": `${said}, as a number`, "aria-errormessage": range.id,
    oninput() {
      const next = Math.round(parse(entry.value) * 1000) / 1000;
      const valid = next >= least() && next <= most();
      if (valid) take(next);
      else if (entry.value.trim() && value !== held) take(held);
      judge(valid);
    },
    onchange: () => { held = value; },
    // What was not a number gives way to what holds.
    onblur: () => setTimeout(() => update(value)),
    onfocus() {
      held = value;
      entry.select();
    },
    onkeydown(event) {
      const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (steps && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        // On whole steps, free of what binary fractions add.
        const next = Math.round((value + steps * jump) * 1000) / 1000;
        take(Math.min(Math.max(next, least()), most()));
        held = value;
        show();
      } else if (event.key === "Enter" || event.key === "Escape") {
        if (entry.getAttribute("aria-invalid") !== "true") return;
        show();
        judge(true);
        entry.select();
      }
    },
  });
  function update(next, settle = false) {
    value = next;
    if (settle) [slider.min, slider.max] = [low, high];
    const limit = 2 ** Math.max(1, Math.ceil(Math.log2(Math.abs(value))));
    if (bound && limit > Number(slider.max)) [slider.min, slider.max] = [-limit, limit];
    if (slider.value !== String(value)) slider.value = value;
    if (entry !== entry.getRootNode().activeElement) show();
    setAttribute(entry, "aria-valuenow", value);
    judge(true);
  }
  const tellBounds = () => {
    entry.setAttribute("aria-valuemin", least());
    entry.setAttribute("aria-valuemax", most());
  };
  tellBounds();
  const bounds = (...ends) => {
    [low, high] = ends;
    [slider.min, slider.max] = ends;
    tellBounds();
  };
  const element = h("div", { class: "cell" },
    h("span", { class: "name", "aria-hidden": "true" }, name), entry, slider, range);
  return { element, update, bounds };
}

// Sliders and number entries in the rows and columns of θ. `onedit(rows)` is given the whole
// matrix.
export function matrix(rows, { name, heads, sides, onedit }) {
  let values = rows;
  const fields = rows.map((row, r) => row.map((_, c) => field({
    name: `${name}${"₁₂"[r]}${"₁₂₃"[c]}`,
    label: `${name}, row ${r + 1}, column ${c + 1}`,
    low: -2, high: 2, step: 0.01, jump: 0.05, bound: 1000,
    onedit(value) {
      values = values.map((row) => [...row]);
      values[r][c] = value;
      onedit(values);
    },
  })));
  const side = (text) => h("div", { class: "side", "aria-hidden": "true" }, text);
  const head = (text) => h("div", { class: "head", "aria-hidden": "true" }, text);
  const element = h("div", { class: "matrix", role: "group", "aria-label": `The matrix ${name}` },
    h("div", { class: "bracket", "aria-hidden": "true" }),
    head(""), ...heads.map(head),
    ...fields.flatMap((row, r) => [side(sides[r]), ...row.map((one) => one.element)]));
  const update = (next, settle) => {
    values = next;
    next.forEach((row, r) => row.forEach((value, c) => fields[r][c].update(value, settle)));
  };
  update(rows);
  return { element, update };
}
