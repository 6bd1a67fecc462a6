// The pooling explorable: a row of bits, the same row moved, and what a max-pool makes of the two.

import { blurPool, roll } from "./maths.js";
import { explorable, follow, frames, h, options, save } from "./ui.js";

const SIGNALS = { "00110011": "Pairs", "01010101": "Every other", "00001111": "An edge", "00010000": "One" };

explorable("pooling", ({ model, root, announce }) => {
  const names = ["bits", "shift", "stride", "blur"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  let state = first;
  const set = (values) => {
    save(model, values);
    announce(sentence());
  };

  // --- What is computed ---

  const signal = () => [...state.bits].map(Number);
  const run = (entries) => blurPool(entries, state.stride, state.blur);
  // Where an output of the moved signal has come from: whole places of the output only.
  const along = () => Math.trunc(state.shift / state.stride);

  function compare() {
    const still = run(signal());
    const moved = run(roll(signal(), state.shift));
    const expected = roll(still.output, along());
    const gaps = moved.output.map((value, k) => Math.abs(value - expected[k]));
    return { still, moved, gaps };
  }

  // 0.25 as ".25": eight of them stand in a row on a phone.
  const brief = (value) => String(Number(value.toFixed(3))).replace(/^0\./, ".");
  const list = (values) =>
    values.map(brief).join(values.every(Number.isInteger) ? "" : ", ");
  const places = (count) => ["no place", "one place", "two places", "three places"][count]
    ?? `${count} places`;
  const way = (shift) => (shift
    ? `moved ${places(Math.abs(shift))} to the ${shift < 0 ? "left" : "right"}` : "not moved");

  function sentence() {
    const { still, moved, gaps } = compare();
    const differ = gaps.filter((gap) => gap > 1e-9).length;
    const end = !differ && along() ? "the same, moved with it."
      : differ ? `${differ} of ${gaps.length} differ.` : "none differs.";
    return `The signal becomes ${list(still.output)}; ${way(state.shift)}, it becomes ${
      list(moved.output)}: ${end}`;
  }

  function aside() {
    const { gaps } = compare();
    const largest = Math.max(...gaps);
    const mean = gaps.reduce((sum, gap) => sum + gap) / gaps.length;
    return `The largest difference is ${brief(largest).replace(/^\./, "0.")}, the mean ${
      brief(mean).replace(/^\./, "0.")}. The ends meet: after the last entry comes the first.`;
  }

  // --- Rows ---

  const rows = h("div", { class: "signals" });
  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  // A cell of a row: where it begins, how many entries wide, and how bright.
  const place = (k, span, value) => {
    const light = Math.round(255 * value);
    return `grid-column: ${k + 2} / span ${span}; background: rgb(${light} ${light} ${light}); `
      + `color: ${value > 0.45 ? "#000" : "#fff"}`;
  };
  const row = (kind, said, ...cells) => h("div", { class: `row ${kind}`, role: "group", "aria-label": said },
    h("span", { class: "side", "aria-hidden": "true" }, said.split(": ").at(-1)), ...cells);
  const head = (text) => h("p", { class: "heading" }, text);

  let bits = [];
  function build() {
    bits = signal().map((_, k) => h("button", {
      type: "button", class: "bit",
      onclick: () => set({
        bits: [...state.bits].map((bit, one) => (one === k ? String(1 - bit) : bit)).join(""),
      }),
      onkeydown(event) {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step) bits[(k + step + bits.length) % bits.length].focus();
      },
    }));
    signalRow.replaceChildren(signalRow.firstChild, ...bits);
  }
  const signalRow = row("input", "Signal: signal");

  const shown = (kind, said, values, { span = 1, kept = 1, wrong } = {}) => row(kind, said,
    ...values.map((value, k) => h("span", {
      class: `bit${k % kept ? " dropped" : ""}${wrong?.(k) ? " wrong" : ""}`,
      style: place(k * span, span, value),
    }, brief(value))));

  function show() {
    const { still, moved, gaps } = compare();
    const { stride, blur } = state;
    signal().forEach((bit, k) => {
      bits[k].style = place(k, 1, bit);
      bits[k].textContent = bit;
      // With the value, which is what is seen: whoever speaks to the browser says that.
      bits[k].setAttribute("aria-label", `Entry ${k + 1}: ${bit}`);
      bits[k].setAttribute("aria-pressed", String(Boolean(bit)));
    });
    const wrong = (k) => gaps[k] > 1e-9;
    const count = gaps.length;
    const from = (k) => (((k + along()) % count) + count) % count;
    const every = stride === 1 ? "" : ": every second is kept";
    const pair = (heading, key, last, kind) => [head(heading),
      shown(kind, `${heading}: signal`, still[key], last(from)),
      shown(kind, `${heading}: moved`, moved[key], last((k) => k))];
    const all = () => ({ kept: stride });
    const steps = blur
      ? [...pair("The larger of each two", "maxima", () => ({}), "between"),
        ...pair(`Blurred with ${blur} taps${every}`, "blurred", all, "between")]
      : pair(`The larger of each two${every}`, "maxima", all, "between");
    rows.style.setProperty("--count", signal().length);
    rows.replaceChildren(
      head("Signal: press an entry to turn it over"), signalRow,
      shown("input", "Signal: moved", roll(signal(), state.shift)),
      ...(stride === 1 && !blur ? [] : steps),
      ...pair(stride === 1 && !blur ? "Output: the larger of each two" : "Output", "output",
        (index) => ({ span: stride, wrong: (k) => wrong(index(k)) }), "output"));
  }

  // --- Controls ---

  const move = (by, text, said) => h("button", {
    type: "button", class: "chip", "aria-label": said,
    onclick() {
      const count = state.bits.length;
      set({ shift: (state.shift + by) % count });
    },
  }, text);
  const shifts = h("div", { class: "options", role: "group", "aria-label": "Move" },
    h("span", { "aria-hidden": "true" }, "Move"),
    h("div", { class: "chips" }, move(-1, "◀ left", "Move left by one"), move(1, "right ▶", "Move right by one")));
  const strides = options("Stride", { 1: "1", 2: "2" }, (value) => set({ stride: Number(value) }));
  const blurs = options("Blur", { 0: "None", 3: "3 taps", 5: "5 taps" },
    (value) => set({ blur: Number(value) }));
  const signals = options("Signal", SIGNALS, (value) => set({ bits: value }));
  const reset = h("button", { type: "button", class: "chip quiet", onclick: () => set(first) }, "Reset");

  // --- All together ---

  const draw = frames(() => {
    if (bits.length !== state.bits.length) build();
    // A pressed entry keeps the focus, although its row is put in place anew.
    const held = bits.indexOf(root.getRootNode().activeElement);
    show();
    if (held >= 0) bits[held].focus();
    strides.update(state.stride);
    blurs.update(state.blur);
    signals.update(state.bits);
    words.textContent = sentence();
    facts.textContent = aside();
  });
  const take = () => {
    state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    draw();
  };
  const unfollow = follow(model, Object.fromEntries(names.map((name) => [name, take])));
  root.append(rows, h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" }, shifts, strides.element, blurs.element, signals.element, reset));
  take();
  return unfollow;
});
