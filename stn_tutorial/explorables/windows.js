// The windows explorable: the reader moves two windows over a drawn bird, and a trained network names
// the bird through them. It runs here; `window_nets.py` has it in PyTorch.

import { forward, odds, softmax, unpack, wholePercent } from "./nets.js";
import { field } from "./fields.js";
import { drawPicture, explorable, follow, frame, frames, h, handle } from "./ui.js";
import { loadPictures, number, palette, pictureChoice, plane, save } from "./ui.js";
import { setAttribute, setText, stroke } from "./ui.js";

const WINDOW = 24; // pixels a side of what a window shows; the picture has twice as many
const REACH = 0.5; // a window's middle stays so near to the picture's that all of it lies inside
const TILES = [[-0.5, 0], [0.5, 0]];
const TWO = [0, 1];

const within = (value) => Math.min(Math.max(value, -REACH), REACH);

// A picture of bytes, three to a pixel, as the networks take it: a channel after the other, to 1.
export function channelsFirst({ width, height, data }) {
  const count = width * height;
  const result = new Float32Array(3 * count);
  for (let k = 0; k < count; k++) {
    for (let c = 0; c < 3; c++) result[c * count + k] = data[3 * k + c] / 255;
  }
  return { width, height, channels: 3, data: result };
}

// What a window shows. Its pixels are as large as the picture's, so that all stand at the same place
// between four of these; beyond the picture its edge is repeated.
export function throughWindow({ width, height, data }, [x, y]) {
  const result = new Float32Array(3 * WINDOW * WINDOW);
  const start = [((1 + x) * width - WINDOW) / 2, ((1 + y) * height - WINDOW) / 2];
  const [left, top] = start.map(Math.floor);
  const [fx, fy] = [start[0] - left, start[1] - top];
  const inside = (place, side) => Math.min(Math.max(place, 0), side - 1);
  let place = 0;
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < WINDOW; i++) {
      const [upper, lower] = [0, 1].map((step) => (c * height + inside(top + i + step, height)) * width);
      for (let j = 0; j < WINDOW; j++) {
        const [a, b] = [inside(left + j, width), inside(left + j + 1, width)];
        result[place++] = (1 - fy) * ((1 - fx) * data[upper + a] + fx * data[upper + b])
          + fy * ((1 - fx) * data[lower + a] + fx * data[lower + b]);
      }
    }
  }
  return { width: WINDOW, height: WINDOW, channels: 3, data: result };
}

// What window k adds to the scores of the kinds: its descriptor by its half of the last weights.
export function sharesOf({ read, name: [{ inputs, outputs, weight }] }, view, k) {
  const made = forward(read, view);
  return Array.from({ length: outputs }, (_, kind) => {
    let sum = 0;
    for (let f = 0; f < made.length; f++) sum += weight[kind * inputs + k * made.length + f] * made[f];
    return sum;
  });
}

// How likely each kind is, of both windows' shares.
export const kindsOf = ({ name: [{ bias }] }, shares) =>
  softmax(shares[0].map((share, kind) => share + shares[1][kind] + bias[kind]));

// Where the network puts its windows.
export function placedBy({ localise }, U) {
  const [a, b, c, d] = forward(localise, U);
  return [[a, b], [c, d]].map((middle) => middle.map(within));
}

export const holdsPoint = (middle, point) =>
  point.every((value, axis) => Math.abs(value - middle[axis]) < REACH);

explorable("windows", ({ model, root, pictures, announce, onTheme }) => {
  const names = ["bird", "middles"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const { figures, kinds, ...network } = model.get("_nets");
  const birds = model.get("_birds");
  const nets = unpack(network);
  const [bills, wings] = [[0, 2], [0, 1]].map((places, part) =>
    places.map((kind) => kinds[kind].split(", ")[part]));
  let state = first;
  let colours = palette(root);
  let now;

  // A window that has not moved is not read again.
  const made = [];
  function readThrough(k) {
    const middle = state.middles[k];
    const key = [state.bird, ...middle].join();
    if (made[k]?.key !== key) {
      const view = throughWindow(now.U, middle);
      made[k] = { key, view, shares: sharesOf(nets, view, k) };
    }
    return made[k];
  }

  function takeBird() {
    const U = channelsFirst(pictures[state.bird]);
    now = { bird: state.bird, U, own: placedBy(nets, U) };
  }

  // --- The pictures ---

  const seenOf = TWO.map(() => colourCanvas(WINDOW));
  const outline = (context, self, [x, y]) => stroke(context, colours, colours.grid, 2.5,
    [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([a, b]) => self.place(x + REACH * a, y + REACH * b)), true);
  const input = plane("The bird", (context, self) => {
    if (!now) return;
    frame(context, colours.input, drawPicture(context, self, pictures[state.bird].canvas, 1, 1));
    for (const k of TWO) outline(context, self, state.middles[k]);
    const { head, wing } = birds[state.bird];
    const [x, y] = self.place(...head);
    const ring = [...Array(24).keys()].map((k) => (2 * Math.PI * k) / 24);
    stroke(context, colours, colours.error, 2,
      ring.map((angle) => [x + 6 * Math.cos(angle), y + 6 * Math.sin(angle)]), true);
    const [u, v] = self.place(...wing);
    for (const side of [-1, 1]) {
      stroke(context, colours, colours.error, 2, [[u - 5, v - 5 * side], [u + 5, v + 5 * side]]);
    }
  }, { x: 0, y: 0, reach: 1.15 });
  const outputs = TWO.map((k) => plane(`What window ${k + 1} shows`, (context, self) => now
    && frame(context, colours.output, drawPicture(context, self, seenOf[k](made[k].view.data), 1, 1)),
  { x: 0, y: 0, reach: 1.08 }));
  const planes = [input, ...outputs];
  const says = TWO.map(() => TWO.map(() => h("div")));
  const bars = odds("output named", "The network says", kinds);
  const stage = h("div", { class: "looking over" },
    h("figure", { class: "input" },
      h("figcaption", {}, h("b", {}, "The bird"), h("span", {}, " and two windows to move")),
      input.element),
    h("div", { class: "seen" }, ...TWO.map((k) => h("figure", { class: "output" },
      h("figcaption", {}, h("b", {}, `Window ${k + 1}`)), outputs[k].element,
      h("div", { class: "reading-of" }, ...says[k])))),
    h("div", { class: "pair one" }, bars.panel));

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });
  const best = () => now.kinds.indexOf(Math.max(...now.kinds));
  const truth = () => birds[state.bird].kind;
  const both = (kind) => kinds[kind].replace(", ", " and a ");

  function sentence() {
    const said = best();
    const share = wholePercent(now.kinds[said]);
    return `It has a ${both(truth())}, ${said === truth()
      ? `and the network says so (${share}).` : `but the network says ${kinds[said]} (${share}).`}`;
  }

  // A detail's two sides, and how likely the second is.
  function detail([one, other], share) {
    const most = Math.max(share, 1 - share);
    return `${share >= 0.5 ? other : one} at ${wholePercent(most)}`;
  }

  function aside() {
    const { head, wing } = birds[state.bird];
    const held = state.middles.map((middle) => {
      const [inHead, inWing] = [head, wing].map((at) => holdsPoint(middle, at));
      if (inHead && inWing) return "head and wing";
      return inHead ? "the head" : inWing ? "the wing" : "neither";
    });
    return `Each detail by itself: ${detail(bills, now.kinds[2] + now.kinds[3])}, ${
      detail(wings, now.kinds[1] + now.kinds[3])}. Window 1 holds ${held[0]}, window 2 ${held[1]}.`;
  }

  // What a window's shares speak for: half the difference of both sides, in scores.
  function spoken(shares) {
    const bill = (shares[2] + shares[3] - shares[0] - shares[1]) / 2;
    const wing = (shares[1] + shares[3] - shares[0] - shares[2]) / 2;
    return [[bills, bill], [wings, wing]].map(([[one, other], value]) =>
      `${value >= 0 ? other : one} +${number(Math.abs(value), 1)}`);
  }

  function measured() {
    const share = (place, name = "kind") => `${figures[place][name].toFixed(1)}\u00a0%`;
    const follows = (part) => figures.own[`follows ${part}`].map((one) => number(one)).join(" and ");
    return h("p", { class: "facts measured" },
      "The ring is the middle of the true head, the cross that of the wing. Under a window stands what it "
      + "adds to the scores: the last layer is linear, so that both windows' shares and a constant are all. "
      + `Measured on ${String(figures.birds).replace(/\B(?=(\d{3})+$)/g, "\u00a0")} test birds: with two `
      + `windows anywhere, this network names ${share("anywhere")} rightly, with tiles ${share("tiles")}, with `
      + `both in the middle ${share("middle")}, on the true head and the true wing ${share("head and wing")}; `
      + `where its localisation net puts them, ${share("own")}, and with two that stand at the mean of these `
      + `places ${share("standing")}. Of the wing's movement its own windows take up ${follows("wing")}, of the `
      + `head's ${follows("head")} (1 − var(c − p) / var(p), with c a window's middle and p the part's place).`);
  }

  // --- What the reader does ---

  function edit(values) {
    state = { ...state, ...values };
    save(model, values);
    draw();
  }
  const move = (k, x, y) => edit({
    middles: state.middles.map((one, n) => (n === k ? [x, y].map(within) : one)),
  });
  // Each window is held by a corner of its own: one over another, both can still be told apart.
  const corners = [[-REACH, -REACH], [REACH, REACH]];
  const grips = TWO.map((k) => handle(input, {
    name: `Window ${k + 1}`, kind: "corner", help: "Arrow keys move it by a pixel, with Shift by ten.",
    moved: (x, y) => move(k, x - corners[k][0], y - corners[k][1]),
    nudged: (dx, dy) => move(k, ...[dx, dy].map((step, axis) =>
      state.middles[k][axis] + (step * 2) / now.U.width)),
  }));
  grips.forEach((grip, k) => { grip.dataset.mark = k + 1; });
  // Anywhere else: the window that is under the pointer, and of two the one whose middle is nearer.
  let hold;
  const nearest = (point) => {
    const far = state.middles.map((middle) =>
      Math.hypot(point[0] - middle[0], point[1] - middle[1]) + (holdsPoint(middle, point) ? 0 : 9));
    return far[1] < far[0] ? 1 : 0;
  };
  input.canvas.addEventListener("pointerdown", (event) => {
    if (event.button || hold) return;
    event.preventDefault();
    input.canvas.setPointerCapture(event.pointerId);
    const point = input.locate(event);
    const k = nearest(point);
    hold = { id: event.pointerId, k, off: state.middles[k].map((value, axis) => value - point[axis]) };
  });
  input.canvas.addEventListener("pointermove", (event) => {
    if (hold?.id !== event.pointerId) return;
    move(hold.k, ...input.locate(event).map((value, axis) => value + hold.off[axis]));
  });
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
    input.canvas.addEventListener(type, (event) => {
      if (hold?.id !== event.pointerId) return;
      hold = undefined;
      tell();
    });
  }
  const entries = TWO.flatMap((k) => TWO.map((axis) => ({ k, axis, ...field({
    name: `${"xy"[axis]}${"₁₂"[k]}`, label: `${"xy"[axis]} of window ${k + 1}`,
    low: -REACH, high: REACH, step: 0.01, jump: 0.05,
    onedit: (value) => move(k, ...state.middles[k].map((one, n) => (n === axis ? value : one))),
  }) })));
  const chip = (text, onclick, kind = "chip") =>
    h("button", { type: "button", class: kind, onclick }, text);
  const own = chip("Where the network looks", () => edit({ middles: now.own.map((one) => [...one]) }));
  const tiles = chip("Tiles", () => edit({ middles: TILES }));
  const parts = chip("Head and wing", () => {
    const { head, wing } = birds[state.bird];
    edit({ middles: [head, wing].map((one) => one.map(within)) });
  });
  const choice = pictureChoice((bird) => edit({ bird }));
  const reset = chip("Reset", () => edit(first), "chip quiet");

  // --- All together ---

  const tell = () => announce(words.textContent);
  const draw = frames(() => {
    if (now?.bird !== state.bird) takeBird();
    const shares = TWO.map((k) => readThrough(k).shares);
    now.kinds = kindsOf(nets, shares);
    for (const self of planes) self.draw();
    setText(words, sentence());
    setText(facts, aside());
    for (const k of TWO) {
      const spoke = spoken(shares[k]);
      spoke.forEach((text, n) => setText(says[k][n], text));
      setAttribute(outputs[k].canvas, "aria-label", `What window ${k + 1} shows: ${spoke.join(", ")}`);
      const [x, y] = state.middles[k];
      grips[k].put(x + corners[k][0], y + corners[k][1], `${number(x)}, ${number(y)}`);
    }
    setAttribute(input.canvas, "aria-label", `The bird, and two windows. ${words.textContent}`);
    bars.update(now.kinds);
    for (const { k, axis, update } of entries) update(Math.round(state.middles[k][axis] * 1e6) / 1e6);
    choice.update(pictures, state.bird);
    if (!hold) tell();
  });
  const change = async () => {
    pictures = await loadPictures(model.get("_pictures"), pictures);
    if (hold) return;
    state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    draw();
  };
  const unfollow = follow(model, Object.fromEntries(names.map((name) => [name, change])));
  onTheme(() => {
    colours = palette(root);
    if (now) draw();
  });
  for (const self of planes) self.onresize = draw;
  root.append(stage, h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" },
      h("div", { class: "chips", role: "group", "aria-label": "Put the windows" }, own, parts, tiles),
      h("div", { class: "fields many" }, ...entries.map((one) => one.element)), choice.element, reset),
    measured());
  draw();
  return () => {
    unfollow();
    for (const self of planes) self.stop();
  };
});

// Values in [0, 1], a channel after the other, onto a canvas of their own.
function colourCanvas(side) {
  const canvas = h("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  return (values) => {
    const count = side * side;
    for (let k = 0; k < count; k++) {
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = 255 * values[c * count + k];
      image.data[4 * k + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  };
}
