// The network explorable: a digit is turned, moved, scaled or drawn, and two trained networks read
// it, one of them through a spatial transformer. Both run here; `nets.js` has them.

import { describe, invert, transformPoint } from "./maths.js";
import { FRAME, SEEN, drawWindow, forward, greyCanvas, odds, wholePercent, placed } from "./nets.js";
import { posed, seenThrough, softmax, unpack } from "./nets.js";
import { field } from "./fields.js";
import { bounded, dragged, poseFields, poseHandles } from "./poses.js";
import { drawPicture, explorable, follow, frame, frames, h } from "./ui.js";
import { loadPictures, number, options, palette, pictureChoice, plane, save } from "./ui.js";
import { setAttribute, setText } from "./ui.js";

// What both networks make of a frame, values in [0, 1]: θ, V and the classes' probabilities.
export function readBoth(nets, U) {
  const picture = { width: FRAME, height: FRAME, channels: 1, data: Float32Array.from(U) };
  // A similarity's four offsets: it turns, scales and moves.
  const [cos, sin, x, y] = forward(nets.localise, picture);
  const theta = [[1 + cos, -sin, x], [sin, 1 + cos, y]];
  const V = seenThrough(picture, theta, SEEN);
  return {
    theta, V,
    look: softmax(forward(nets.read, { width: SEEN, height: SEEN, channels: 1, data: V })),
    plain: softmax(forward(nets.plain, picture)),
  };
}

// --- Drawing ---

// Strokes of a round pen, so many pixels wide at size 1, whose edge is one pixel soft.
export function inked(strokes, pen, pose) {
  const data = new Float64Array(FRAME * FRAME);
  const moved = invert(posed(pose));
  const radius = (pen * pose[1]) / 2;
  const pixel = (v) => ((v + 1) * FRAME - 1) / 2;
  for (const line of strokes) {
    const points = line.map((point) => transformPoint(moved, point).map(pixel));
    points.forEach(([x1, y1], k) => {
      const [x0, y0] = points[Math.max(k - 1, 0)];
      const [dx, dy] = [x1 - x0, y1 - y0];
      const length = dx * dx + dy * dy || 1;
      const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)];
      const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)];
      const reach = radius + 1;
      for (let i = Math.max(0, Math.ceil(top - reach)); i <= Math.min(FRAME - 1, bottom + reach); i++) {
        for (let j = Math.max(0, Math.ceil(left - reach)); j <= Math.min(FRAME - 1, right + reach); j++) {
          const along = ((j - x0) * dx + (i - y0) * dy) / length;
          const t = Math.min(Math.max(along, 0), 1);
          const distance = Math.hypot(j - x0 - t * dx, i - y0 - t * dy);
          const ink = Math.min(Math.max(radius - distance + 0.5, 0), 1);
          data[i * FRAME + j] = Math.max(data[i * FRAME + j], ink);
        }
      }
    });
  }
  return data;
}

// --- The explorable ---

explorable("network", ({ model, root, pictures, announce, onTheme }) => {
  const names = ["_picture", "pose", "strokes", "pen"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const network = model.get("_nets");
  const nets = unpack(network);
  let state = first;
  let drawing = first._picture === "drawing";
  let colours = palette(root);
  let now;

  // --- The pictures ---

  const [frameOf, seenOf] = [greyCanvas(FRAME), greyCanvas(SEEN)];
  const input = plane("Input U", paintInput, { x: 0, y: 0, reach: 1.1 });
  const output = plane("What the transformer sees, V", (context, self) =>
    now && frame(context, colours.output, drawPicture(context, self, seenOf(now.V), 1, 1)),
  { x: 0, y: 0, reach: 1.06 });

  function paintInput(context, self) {
    if (!now) return;
    frame(context, colours.input, drawPicture(context, self, frameOf(now.U), 1, 1));
    if (now.blank) return;
    drawWindow(context, self, colours, now.theta);
  }

  const six = [0, 1, 2, 3, 4, 5].map(() => h("span"));
  const theta = h("div", { class: "six", role: "img" }, ...six);
  const withIt = odds("output", "With the transformer");
  const without = odds("input", "Without");
  const caption = h("figcaption", {}, h("b", {}, "Input U"));
  const inputPanel = h("figure", { class: "input" }, caption, input.element);
  const stage = h("div", { class: "looking" }, inputPanel,
    h("figure", { class: "output" },
      h("figcaption", {}, h("b", {}, "V"), h("span", {}, " straightened")), output.element,
      h("div", { class: "name" }, "θ"), theta),
    h("div", { class: "pair" }, withIt.panel, without.panel));

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  function sentence() {
    if (now.blank) return drawing ? "Draw a digit in the frame." : "There is nothing in the frame.";
    const said = (values) => {
      const most = Math.max(...values);
      return `${values.indexOf(most)} (${wholePercent(most)})`;
    };
    return `Read as ${said(now.look)} with the transformer, as ${said(now.plain)} without.`;
  }

  function measured() {
    const { test, drawn, turn, scale, parameters, undone } = network.figures;
    const right = (share) => `${share.toFixed(1)}\u00a0%`;
    const spaced = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
    return h("p", { class: "facts measured" },
      `Measured, with the transformer and without: of ${spaced(test.digits)} test digits of MNIST, turned by `
      + `up to ${turn}° either way, scaled by ${scale[0]} to ${scale[1]} and shifted, `
      + `${right(test.look)} and ${right(test.plain)} are read right${drawn ? `; of ${drawn.digits} `
      + `digits that a script drew in this frame with such a pen, ${right(drawn.look)} and ${
        right(drawn.plain)}` : ""}. Of a turn by up to 60° the transformer takes back ${
        Math.round(100 * undone[1])}\u00a0% (the median of 1000 test digits; nine in ten have `
      + `${Math.round(100 * undone[0])}\u00a0% or more). The networks have `
      + `${spaced(parameters.look)} and ${spaced(parameters.plain)} parameters. A drawing is read where and as it `
      + "stands: nothing centres or scales it first.");
  }

  // --- What the reader does ---

  function edit(values) {
    state = { ...state, ...values };
    save(model, values);
    draw();
  }
  const posing = {
    get: () => state.pose,
    put: (...pose) => edit({ pose: bounded(...pose) }),
  };
  const fields = poseFields(posing);
  const pen = field({
    name: "pen", label: "Width of the pen, in pixels", low: 1, high: 6, step: 0.1, jump: 0.5,
    onedit: (value) => edit({ pen: value }),
  });
  const putHandles = poseHandles(input, posing);

  // Fingers on the paper: one draws, or moves; two turn and scale as well.
  const fingers = new Map();
  const round = (point) => point.map((v) => Math.round(v * 1e4) / 1e4);
  // What is drawn is kept as it would stand unmoved; it then moves like a picture.
  const inkAt = (event) => round(transformPoint(posed(state.pose), input.locate(event)));
  input.canvas.addEventListener("pointerdown", (event) => {
    if (event.button || fingers.size === (drawing ? 1 : 2)) return;
    event.preventDefault();
    input.canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, input.locate(event));
    if (!drawing) return;
    state = { ...state, strokes: [...state.strokes, [inkAt(event)]] };
    draw();
  });
  input.canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const after = input.locate(event);
    if (drawing) {
      const many = event.getCoalescedEvents?.() ?? [];
      const line = [...state.strokes.at(-1), ...(many.length ? many : [event]).map(inkAt)];
      state = { ...state, strokes: [...state.strokes.slice(0, -1), line] };
      draw();
      return;
    }
    fingers.set(event.pointerId, after);
    const [, still] = [...fingers].find(([id]) => id !== event.pointerId) ?? [];
    posing.put(...dragged(state.pose, before, after, still));
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    // Only now: a kernel need not hear of every point.
    if (drawing) save(model, { strokes: state.strokes });
    tell();
  };
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
    input.canvas.addEventListener(type, lift);
  }

  const paper = { pose: [0, 1, 0, 0], strokes: [], _picture: "drawing" };
  const modes = options("Finger or mouse", { move: "Moves", draw: "Draws" }, (chosen) => {
    drawing = chosen === "draw";
    edit(drawing && state._picture !== "drawing" ? { ...paper, strokes: state.strokes } : {});
  });
  const choice = pictureChoice((name) => {
    drawing = false;
    edit({ _picture: name });
  });
  const clear = h("button", {
    type: "button", class: "chip",
    onclick() {
      drawing = true;
      edit(paper);
    },
  }, "Clear");
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      drawing = first._picture === "drawing";
      edit(first);
    },
  }, "Reset");

  // --- All together ---

  const tell = () => announce(words.textContent);
  const draw = frames(() => {
    const { _picture, pose: at, strokes, pen: width } = state;
    const U = _picture === "drawing" ? inked(strokes, width, at) : placed(pictures[_picture], at);
    now = { U, blank: U.every((value) => value === 0), ...readBoth(nets, U) };
    input.draw();
    output.draw();
    const [row, other] = now.theta;
    six.forEach((one, k) => setText(one, number((k < 3 ? row : other)[k % 3])));
    setAttribute(theta, "aria-label", `θ: ${six.map((one) => one.textContent).join(", ")}`);
    withIt.update(now.blank ? null : now.look);
    without.update(now.blank ? null : now.plain);
    setText(words, sentence());
    setText(facts, now.blank ? "" : describe(now.theta)
      .replace("The picture is", "V shows U").replace("The picture stays", "V shows U"));
    setAttribute(input.canvas, "aria-label", `Input U. ${words.textContent}`);
    setAttribute(output.canvas, "aria-label", `V. ${facts.textContent}`);
    fields.update();
    pen.update(width);
    modes.update(drawing ? "draw" : "move");
    choice.update(pictures, _picture);
    inputPanel.classList.toggle("drawing", drawing);
    putHandles();
    if (!fingers.size) tell();
  });
  const change = async () => {
    // Once all that was said at a time is there.
    pictures = await loadPictures(model.get("_pictures"), pictures);
    if (fingers.size) return;
    state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    drawing &&= state._picture === "drawing";
    draw();
  };
  const unfollow = follow(model, Object.fromEntries(names.map((name) => [name, change])));
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [input, output]) self.onresize = draw;
  root.append(stage, h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" },
      h("div", { class: "fields many" }, ...fields.elements, pen.element),
      modes.element, choice.element, clear, reset),
    measured());
  draw();
  return () => {
    unfollow();
    for (const self of [input, output]) self.stop();
  };
});
