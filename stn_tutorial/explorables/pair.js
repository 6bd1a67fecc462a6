// The pair explorable: two digits, each in its channel, are turned, moved or scaled, and a trained
// network with two windows adds them. It runs here; `pair_nets.py` has it in PyTorch.

import { FRAME, drawWindow, forward, greyCanvas, odds, placed, seenThrough } from "./nets.js";
import { softmax, unpack, wholePercent } from "./nets.js";
import { bounded, dragged, poseFields, poseHandles } from "./poses.js";
import { transformPoint } from "./maths.js";
import { drawPicture, explorable, follow, frame, frames, h, label } from "./ui.js";
import { loadPictures, number, options, palette, pictureChoice, plane, save } from "./ui.js";
import { setAttribute, setText, stroke } from "./ui.js";

const VIEW = 20; // pixels a side of what a window gives
const BOTH = [0, 1];

// What the network makes of two channels, values in [0, 1], one after the other: θ of each window, V
// and a digit's probabilities by window and channel, and the sums' probabilities.
export function addUp(nets, U) {
  const data = Float32Array.from(U);
  const size = { width: FRAME, height: FRAME };
  const theta = [nets.first, nets.second].map((net) => {
    // A similarity's four offsets: it turns, scales and moves.
    const [cos, sin, x, y] = forward(net, { ...size, channels: 2, data });
    return [[1 + cos, -sin, x], [sin, 1 + cos, y]];
  });
  const channels = BOTH.map((c) => data.subarray(c * FRAME ** 2, (c + 1) * FRAME ** 2));
  const V = theta.map((one) => channels.map((own) => seenThrough({ ...size, data: own }, one, VIEW)));
  const scores = V.map((row) => row.map((view) =>
    forward(nets.read, { width: VIEW, height: VIEW, channels: 1, data: view })));
  const all = Float32Array.from(scores.flat().flatMap((one) => [...one]));
  return {
    theta, V,
    views: scores.map((row) => row.map(softmax)),
    sum: softmax(forward(nets.add, { data: all })),
  };
}

// By how many degrees counter-clockwise a window turns what it reads.
export const turned = ([[a, b], [c, d]]) => (Math.atan2(c - b, a + d) * 180) / Math.PI;

const best = (values) => values.indexOf(Math.max(...values));

explorable("pair", ({ model, root, pictures, announce, onTheme }) => {
  const names = ["digits", "poses"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const { figures, ...network } = model.get("_nets");
  const nets = unpack(network);
  let state = first;
  let chosen = 0; // whose sliders there are
  let colours = palette(root);
  let now;

  // --- The pictures ---

  const frameOf = BOTH.map(() => greyCanvas(FRAME));
  const viewOf = BOTH.map(() => BOTH.map(() => greyCanvas(VIEW)));
  const inputs = BOTH.map((c) => plane(`Channel ${c + 1}`, (context, self) => {
    if (!now) return;
    frame(context, colours.input, drawPicture(context, self, frameOf[c](now.U[c]), 1, 1));
    // The window that has taken the other digit, dashed; then its own.
    const own = figures.takes.indexOf(c);
    outline(context, self, now.theta[1 - own]);
    drawWindow(context, self, colours, now.theta[own]);
    for (const k of BOTH) {
      const [x, y] = self.place(...transformPoint(now.theta[k], [-0.86, -0.8]));
      context.font = "600 13px system-ui, sans-serif";
      context.textAlign = "center";
      label(context, String(k + 1), x, y + 5);
    }
  }, { x: 0, y: 0, reach: 1.2 }));

  function outline(context, self, theta) {
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
    stroke(context, colours, colours.grid, 1.25,
      corners.map((point) => self.place(...transformPoint(theta, point))), true, [4, 5]);
  }

  const outputs = BOTH.map((k) => BOTH.map((c) =>
    plane(`What window ${k + 1} reads of channel ${c + 1}`, (context, self) => now
      && frame(context, colours.output, drawPicture(context, self, viewOf[k][c](now.V[k][c]), 1, 1)),
    { x: 0, y: 0, reach: 1.08 })));
  const readings = BOTH.map(() => BOTH.map(() => [h("span"), h("span", { class: "share" })]));
  const planes = [...inputs, ...outputs.flat()];

  const bars = odds("output sums", "The sum", 19);
  const stage = h("div", { class: "looking couple" }, ...BOTH.map((c) =>
    h("div", { class: "channel" },
      h("figure", { class: "input" },
        h("figcaption", {}, h("b", {}, `Channel ${c + 1}`)), inputs[c].element),
      h("div", { class: "views" }, ...BOTH.map((k) => h("figure", { class: "output" },
        outputs[k][c].element,
        h("div", { class: "reading-of" }, h("b", {}, `V${"₁₂"[k]} `), ...readings[k][c])))))),
  bars.panel);

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  function sentence() {
    const [a, b] = state.digits.map(Number);
    const said = best(now.sum);
    const share = wholePercent(now.sum[said]);
    return `${a} + ${b} = ${a + b}, ${said === a + b ? "and" : "but"} the network says ${said} (${share}).`;
  }

  const degrees = (value) => `${number(value, 0)}°`;
  const follows = () => BOTH.map((c) => {
    const k = figures.takes.indexOf(c);
    return `In channel ${c + 1} the digit stands turned by ${degrees(state.poses[c][0])}; window ${
      k + 1} turns what it reads by ${degrees(turned(now.theta[k]))}.`;
  }).join(" ");

  function measured() {
    const { sums, error, parameters, share_of_turn: turns, share_of_shift: shifts, takes } = figures;
    const right = (value) => `${value.toFixed(1)}\u00a0%`;
    const spaced = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
    const share = (rows, other) => takes.map((c, k) =>
      wholePercent(rows[k][other ? 1 - c : c]).replace("-", "−")).join(" and ");
    const still = error.still === undefined ? "" : "; with its windows held still over the whole "
      + `frame, and trained for as long, ${right(error.still)}`;
    const plain = error.plain === undefined ? "" : `; a plain network of ${spaced(parameters.plain)} `
      + `parameters, which saw as many sums and no single digits, ${right(error.plain)}`;
    return h("p", { class: "facts measured" },
      "Under each view stands what it is taken for. "
      + `Measured on ${spaced(sums)} sums of test digits of MNIST, turned by up to 45° either way, scaled by `
      + `0.7 to 1.2 and shifted: this network, of ${spaced(parameters.pair)} parameters, gives ${
        right(error.pair)} wrong${still}${plain} (each trained once). Of its own digit's turn, windows 1 and 2 take back ${
        share(turns)}, and of its shift ${share(shifts)}; of the other digit's turn ${
        share(turns, true)}, and of its shift ${share(shifts, true)} (slopes, by least squares). What a digit `
      + "is, the net that reads the views was told beforehand, with single upright digits and their labels; "
      + "where to look, the windows learned from the sum alone.");
  }

  // --- What the reader does ---

  function edit(values) {
    state = { ...state, ...values };
    save(model, values);
    draw();
  }
  const posing = BOTH.map((c) => ({
    get: () => state.poses[c],
    put: (...pose) =>
      edit({ poses: state.poses.map((one, n) => (n === c ? bounded(...pose) : one)) }),
    digit: `digit ${c + 1}`,
    whose: ` of digit ${c + 1}`,
  }));
  const putHandles = BOTH.map((c) => poseHandles(inputs[c], posing[c]));
  const fields = poseFields({
    get: () => state.poses[chosen],
    put: (...pose) => posing[chosen].put(...pose),
  });

  // A finger moves the digit that it is on, two turn and scale it as well.
  const fingers = BOTH.map(() => new Map());
  const busy = () => fingers.some((own) => own.size);
  inputs.forEach((input, c) => {
    const { canvas } = input;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || fingers[c].size === 2) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      fingers[c].set(event.pointerId, input.locate(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers[c].get(event.pointerId);
      if (!before) return;
      const after = input.locate(event);
      fingers[c].set(event.pointerId, after);
      const [, still] = [...fingers[c]].find(([id]) => id !== event.pointerId) ?? [];
      posing[c].put(...dragged(state.poses[c], before, after, still));
    });
    const lift = (event) => {
      if (fingers[c].delete(event.pointerId)) tell();
    };
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(type, lift);
    }
    // Whoever touches a digit gets its sliders.
    input.element.addEventListener("pointerdown", () => choose(c));
    input.element.addEventListener("focusin", () => choose(c));
  });

  function choose(c) {
    if (chosen === c) return;
    chosen = c;
    draw();
  }
  const whose = options("Sliders for", { 0: "Digit 1", 1: "Digit 2" }, (value) => choose(Number(value)));
  const choice = pictureChoice((name) =>
    edit({ digits: state.digits.map((one, n) => (n === chosen ? name : one)) }));
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick: () => edit(first),
  }, "Reset");

  // --- All together ---

  const tell = () => announce(words.textContent);
  const draw = frames(() => {
    const U = BOTH.map((c) => placed(pictures[state.digits[c]], state.poses[c]));
    const both = new Float32Array(2 * FRAME ** 2);
    U.forEach((one, c) => both.set(one, c * FRAME ** 2));
    now = { U, ...addUp(nets, both) };
    for (const self of planes) self.draw();
    setText(words, sentence());
    setText(facts, follows());
    for (const k of BOTH) {
      for (const c of BOTH) {
        const said = best(now.views[k][c]);
        const share = ` (${wholePercent(now.views[k][c][said])})`;
        [said, share].forEach((text, n) => setText(readings[k][c][n], String(text)));
        setAttribute(outputs[k][c].canvas, "aria-label",
          `What window ${k + 1} reads of channel ${c + 1}: ${said}${share}`);
      }
    }
    BOTH.forEach((c) => setAttribute(inputs[c].canvas, "aria-label",
      `Channel ${c + 1}: a ${state.digits[c]}. ${words.textContent}`));
    bars.update(now.sum);
    fields.update();
    whose.update(chosen);
    choice.update(pictures, state.digits[chosen]);
    putHandles.forEach((put) => put());
    if (!busy()) tell();
  });
  const change = async () => {
    // Once all that was said at a time is there.
    pictures = await loadPictures(model.get("_pictures"), pictures);
    if (busy()) return;
    state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    draw();
  };
  const unfollow = follow(model, Object.fromEntries(names.map((name) => [name, change])));
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of planes) self.onresize = draw;
  root.append(stage, h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" }, whose.element, h("div", { class: "fields many" }, ...fields.elements),
      choice.element, reset),
    measured());
  draw();
  return () => {
    unfollow();
    for (const self of planes) self.stop();
  };
});
