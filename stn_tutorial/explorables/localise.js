// The localisation explorable: the reader, or gradient descent, turns the window through which a
// trained network reads a digit, and the loss over the angle is drawn where it has been.

import { compose, rotation, scaling, transformPoint, translation } from "./maths.js";
import { FRAME, SEEN, drawWindow, forward, greyCanvas, odds, wholePercent, placed } from "./nets.js";
import { seenThrough, softmax, unpack } from "./nets.js";
import { field } from "./fields.js";
import { dot, drawPicture, explorable, follow, frame, frames, h, handle } from "./ui.js";
import { number, palette, pictureChoice, plane, save, setAttribute, setText } from "./ui.js";
import { stillness, stroke } from "./ui.js";

// From −180 (left out) to 180 degrees.
export const wrapped = (degrees) => degrees - 360 * Math.ceil((degrees - 180) / 360);

// θ at angle α, from V to the frame: the digit of this pose comes to the middle and is turned by α,
// and the window holds it.
export const windowTheta = ([, size, right, down], angle) => compose(
  compose(translation(-right, -down), rotation(angle)), scaling(FRAME / SEEN / size));

// What a network makes of U, Float64Array of the frame, at angle α.
export function readAt(layers, U, start, label, angle) {
  const theta = windowTheta(start, angle);
  const V = seenThrough({ width: FRAME, height: FRAME, data: U }, theta, SEEN, Float64Array);
  const scores = forward(layers, { width: SEEN, height: SEEN, channels: 1, data: V });
  const most = Math.max(...scores);
  const sum = scores.reduce((total, score) => total + Math.exp(score - most), 0);
  return { theta, V, probabilities: softmax(scores), loss: most + Math.log(sum) - scores[label] };
}

// dL/dα by a central difference, per degree.
export const slopeAt = (loss, angle, half) => (loss(angle + half) - loss(angle - half)) / (2 * half);

explorable("localise", ({ model, root, pictures, announce, onTheme }) => {
  const first = { _picture: model.get("_picture"), angle: model.get("angle") };
  const { read } = unpack(model.get("_nets"));
  const starts = model.get("_starts");
  const { half, rate, flat, most, low } = model.get("_descent");
  let { _picture, angle } = first;
  let colours = palette(root);
  let U;
  let now;
  let slope;
  let seen; // from half degrees to losses
  let path; // of descent: [angle, loss]
  let playing = false;
  let timer;
  let sweep;
  let telling = false; // what the model says meanwhile came from here

  const at = (degrees) => readAt(read, U, starts[_picture], Number(_picture), degrees);
  const lossAt = (degrees) => at(degrees).loss;
  const note = (degrees, loss) => seen.set(Math.round(2 * wrapped(degrees)), loss);

  // Another digit, or everything from the beginning.
  function begin(name, degrees) {
    _picture = name;
    U = placed(pictures[name], starts[name], Float64Array);
    seen = new Map();
    cancelAnimationFrame(sweep);
    sweep = undefined;
    turnTo(degrees);
  }

  function turnTo(degrees) {
    stop();
    angle = degrees;
    path = [];
    slope = undefined;
    now = at(angle);
    note(angle, now.loss);
    draw();
  }

  function tell() {
    telling = true;
    save(model, { _picture, angle, steps: Math.max(path.length - 1, 0) });
    telling = false;
    announce(sentence());
  }

  function byHand(degrees) {
    turnTo(wrapped(degrees));
    tell();
  }

  // --- Descent ---

  function step() {
    if (!path.length) path = [[angle, now.loss]];
    slope ??= slopeAt(lossAt, angle, half);
    if (done()) return;
    angle = wrapped(angle - rate * slope);
    now = at(angle);
    slope = slopeAt(lossAt, angle, half);
    path.push([angle, now.loss]);
    note(angle, now.loss);
  }

  const done = () => path.length > most || (slope !== undefined && Math.abs(slope) < flat);

  function stop() {
    playing = false;
    clearInterval(timer);
  }

  // Twenty steps a second; for readers who asked for stillness, fifty at once.
  function play() {
    if (playing) stop();
    else if (stillness()) for (let k = 0; k < 50; k++) step();
    else {
      playing = true;
      timer = setInterval(() => {
        step();
        if (done()) stop();
        draw();
        tell();
      }, 50);
    }
    draw();
    tell();
  }

  // --- The pictures ---

  const [frameOf, seenOf] = [greyCanvas(FRAME), greyCanvas(SEEN)];
  const input = plane("Input U", (context, self) => {
    if (!now) return;
    frame(context, colours.input, drawPicture(context, self, frameOf(U), 1, 1));
    drawWindow(context, self, colours, now.theta);
  }, { x: 0, y: 0, reach: 1.18 });
  const output = plane("What the window reads, V", (context, self) =>
    now && frame(context, colours.output, drawPicture(context, self, seenOf(now.V), 1, 1)),
  { x: 0, y: 0, reach: 1.06 });
  const curve = plane("The loss over the angle", paintCurve, { x: 0, y: 0, reach: 1 }, 0.34);
  const bars = odds("output", "The network reads");

  const EDGE = 16;
  const acrossCurve = (degrees) => EDGE + ((degrees + 180) / 360) * (curve.size - 2 * EDGE);

  function paintCurve(context, self) {
    if (!now) return;
    const top = [2.5, 5, 10, 20].find((one) => one >= Math.max(...seen.values())) ?? 40;
    const [ceiling, floor] = [8, self.height - 22];
    const put = ([degrees, loss]) =>
      [acrossCurve(degrees), floor - (loss / top) * (floor - ceiling)];
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeStyle = colours.line;
    context.fillStyle = colours.muted;
    context.textAlign = "center";
    context.beginPath();
    for (const degrees of [-180, -90, 0, 90, 180]) {
      const x = acrossCurve(degrees);
      context.moveTo(x, ceiling);
      context.lineTo(x, floor);
      context.fillText(`${number(degrees, 0)}°`, Math.min(Math.max(x, 20), self.size - 18), self.height - 6);
    }
    for (const loss of [0, top]) {
      context.moveTo(...put([-180, loss]));
      context.lineTo(...put([180, loss]));
    }
    context.stroke();
    context.textAlign = "left";
    context.fillText(`L = ${top}`, EDGE + 4, ceiling + 13);
    const visited = [...seen].sort(([a], [b]) => a - b).map(([key, loss]) => [key / 2, loss]);
    // Neighbours are joined; an angle that was jumped over is not known.
    const lines = [];
    for (const [degrees, loss] of visited) {
      const last = lines.at(-1)?.at(-1);
      if (last && degrees - last[0] <= 1.5) lines.at(-1).push([degrees, loss]);
      else lines.push([[degrees, loss]]);
    }
    for (const line of lines) {
      if (line.length > 1) stroke(context, colours, colours.error, 2, line.map(put));
      else dot(context, ...put(line[0]), 2, colours.error);
    }
    for (const point of path) dot(context, ...put(point), 3, colours.theta);
    dot(context, ...put([angle, now.loss]), 6, "#fff", colours.theta);
  }

  // The whole curve, computed in pauses: a frame has eight milliseconds.
  function sweepMore(degrees) {
    const began = performance.now();
    let next = degrees;
    while (next <= 180 && performance.now() - began < 4) {
      note(next, lossAt(next));
      next++;
    }
    sweep = next <= 180 ? requestAnimationFrame(() => sweepMore(next)) : undefined;
    if (sweep) curve.draw();
    else draw();
  }

  // --- What the reader does ---

  const turn = field({
    name: "α", label: "Angle α of the window, in degrees", low: -180, high: 180, step: 1, jump: 5,
    onedit: byHand,
  });
  const middle = () => starts[_picture].slice(2);
  const bearing = ([x, y]) => {
    const [right, down] = middle();
    return (Math.atan2(x - right, down - y) * 180) / Math.PI;
  };
  const whole = (degrees) => Math.round(degrees);
  const grip = handle(input, {
    name: "Turn of the window", kind: "o",
    help: "Arrow keys turn it by a degree, with Shift by ten.",
    moved: (x, y) => byHand(whole(bearing([x, y]))),
    nudged: (dx, dy) => byHand(whole(angle) + dx - dy),
  });
  // Anywhere else in the frame, the window turns as far as the pointer goes round.
  let hold;
  input.canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    input.canvas.setPointerCapture(event.pointerId);
    hold = angle - bearing(input.locate(event));
  });
  input.canvas.addEventListener("pointermove", (event) => {
    if (hold !== undefined) byHand(whole(hold + bearing(input.locate(event))));
  });
  input.canvas.addEventListener("lostpointercapture", () => { hold = undefined; });

  const button = (text, onclick, kind = "chip") => h("button", { type: "button", class: kind, onclick }, text);
  const stepper = button("Step", () => {
    stop();
    step();
    draw();
    tell();
  });
  const player = button("Play", play);
  const again = button("Back to the start", () => byHand(0));
  const all = button("Show the whole curve", () => {
    cancelAnimationFrame(sweep);
    sweepMore(-179);
  });
  const choice = pictureChoice((name) => {
    begin(name, 0);
    tell();
  });
  const reset = button("Reset", () => {
    begin(first._picture, first.angle);
    tell();
  }, "chip quiet");

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  const best = () => now.probabilities.indexOf(Math.max(...now.probabilities));
  const right = () => best() === Number(_picture);

  function sentence() {
    const loss = number(now.loss);
    const count = path.length - 1;
    const after = `after ${count} step${count === 1 ? "" : "s"}`;
    if (path.length && done()) {
      if (now.loss < low && right()) return `Arrived ${after}: the loss is ${loss}.`;
      if (Math.abs(slope) < flat) {
        return `Stuck ${after}: the slope is 0 at an angle where the loss is still ${loss}.`;
      }
    }
    const said = `${best()} (${wholePercent(now.probabilities[best()])})`;
    return `${count > 0 ? `${after[0].toUpperCase()}${after.slice(1)} r` : "R"}ead as ${said}${
      right() ? "" : `, and it is a ${_picture}`}; the loss is ${loss}.`;
  }

  function aside() {
    const share = `p(${_picture}) = ${now.probabilities[Number(_picture)].toFixed(4)}`;
    const turned = number(Math.abs(wrapped(starts[_picture][0] + angle)), 0);
    const stands = `In V the digit is ${turned === "0" ? "upright" : `turned by ${turned}°`}`;
    const steep = slope === undefined ? "" : `, dL/dα = ${number(slope)} per degree`;
    return `α = ${number(angle, 1)}°, ${share}${steep}. ${stands}, which the loss does not know.`;
  }

  // --- All together ---

  const draw = frames(() => {
    for (const self of [input, output, curve]) self.draw();
    bars.update(now.probabilities);
    setText(words, sentence());
    setText(facts, aside());
    turn.update(angle);
    grip.put(...transformPoint(now.theta, [0, -1]), `${number(angle, 0)} degrees`);
    choice.update(pictures, _picture);
    setText(player, playing ? "Pause" : stillness() ? "50 steps" : "Play");
    setAttribute(player, "aria-pressed", playing);
    setAttribute(input.canvas, "aria-label", `Input U, and the window. ${facts.textContent}`);
    setAttribute(output.canvas, "aria-label", `V. ${words.textContent}`);
    setAttribute(curve.canvas, "aria-label", `The loss over the angle, known at ${seen.size} angles. ${
      words.textContent}`);
  });
  const take = () => {
    if (telling) return;
    const [name, degrees] = [model.get("_picture"), model.get("angle")];
    if (name !== _picture) begin(name, degrees);
    else if (degrees !== angle) turnTo(degrees);
  };
  const unfollow = follow(model, { _picture: take, angle: take });
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [input, output, curve]) self.onresize = draw;
  const panel = (kind, name, said, self) => h("figure", { class: kind },
    h("figcaption", {}, h("b", {}, name), h("span", {}, said)), self.element);
  root.append(
    h("div", { class: "looking" }, panel("input", "Input U", " turn the window", input),
      panel("output", "V", " what it reads", output), h("div", { class: "pair one" }, bars.panel)),
    panel("curve", "Loss", " over the angle α, where you have been", curve),
    h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" }, h("div", { class: "fields one" }, turn.element),
      h("div", { class: "chips", role: "group", "aria-label": "Descent" }, stepper, player, again, all),
      choice.element, reset),
    h("p", { class: "facts measured" }, `Descent goes on from where α stands: α ← α − ${rate} dL/dα, in `
      + "degrees. dL/dα is not computed by backpropagation but by central differences of this page's own "
      + `forward pass: (L(α + ${half}°) − L(α − ${half}°)) / ${2 * half}. θ's scale and shift are given, so that `
      + "the window holds the digit."));
  begin(_picture, angle);
  return () => {
    unfollow();
    stop();
    cancelAnimationFrame(sweep);
    for (const self of [input, output, curve]) self.stop();
  };
});
