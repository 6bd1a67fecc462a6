// The descent explorable: a picture finds its place by gradient descent on θ.

import { descend, gaussianBlur, invert, misfit, poseTheta, thetaPose, transformPoint } from "./maths.js";
import { dot, drawPicture, explorable, follow, frame, frames, h, handle, loadPictures } from "./ui.js";
import { number, options, palette, pictureChoice, plane, save, stillness, stroke } from "./ui.js";
import { ownPicture } from "./own.js";

const LIMIT = 400; // steps
const CELLS = 31; // of the landscape, each way

explorable("descent", ({ model, root, pictures, announce, onTheme }) => {
  const names = ["theta", "blur", "turn", "rate", "_picture"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  let state = first;
  let pose = thetaPose(state.theta);
  let start = pose;
  let own = state.theta;
  let colours = palette(root);
  let picture;
  let now;
  let path = [];
  let losses = [];
  let playing = false;

  // The picture's grey values in [0, 1], blurred; it is the target too.
  function prepare() {
    const { width, height, channels, data } = pictures[state._picture];
    const grey = Float64Array.from({ length: width * height }, (_, k) => {
      if (channels === 1) return data[k] / 255;
      return (0.299 * data[3 * k] + 0.587 * data[3 * k + 1] + 0.114 * data[3 * k + 2]) / 255;
    });
    picture = gaussianBlur({ width, height, channels: 1, data: grey }, state.blur);
  }

  // Where the picture's middle lies, in the output.
  const place = (one) => transformPoint(invert(poseTheta(one)), [0, 0]);

  function restart() {
    start = pose;
    now = misfit(picture, picture, pose);
    path = [place(pose)];
    losses = [now.loss];
    chart();
  }

  function step() {
    pose = descend(pose, now.gradient, state.rate, state.turn);
    now = misfit(picture, picture, pose);
    path.push(place(pose));
    losses.push(now.loss);
    own = poseTheta(pose);
    save(model, { theta: own, steps: losses.length - 1, loss: now.loss });
    chart();
  }

  const size = (gradient) => Math.hypot(...gradient.slice(0, state.turn ? 3 : 2));
  const away = () => Math.hypot(...place(pose));
  const arrived = () => away() < 0.02 && Math.abs(pose[2]) < 0.02;
  const done = () => losses.length > LIMIT || size(now.gradient) < 1e-4 || now.loss < 1e-7;

  // --- The two pictures ---

  const view = () => ({ x: 0, y: 0, reach: 1.04 });
  const overlay = plane("The picture over its target", paintOverlay, view());
  const land = plane("The loss over the picture's place", paintLand, view());
  const curve = plane("The loss, step by step", paintCurve, view(), 0.22);

  let overlaid;
  // White where both are, orange where only V is, blue where only the target.
  function paintOverlay(context, self) {
    const { width, height, data } = picture;
    if (overlaid?.picture !== picture) {
      const canvas = h("canvas", { width, height });
      const own = canvas.getContext("2d");
      const peak = 255 / data.reduce((most, value) => Math.max(most, value), 1e-9);
      overlaid = { picture, canvas, own, peak, image: own.createImageData(width, height) };
    }
    const { canvas, own, peak, image } = overlaid;
    for (let k = 0, byte = 0; k < data.length; k++, byte += 4) {
      const both = Math.min(data[k], now.output[k]);
      const [mine, theirs] = [now.output[k] - both, data[k] - both];
      // Orange #E69F00 and a blue that is as bright.
      image.data[byte] = peak * (both + 0.9 * mine + 0.2 * theirs);
      image.data[byte + 1] = peak * (both + 0.62 * mine + 0.55 * theirs);
      image.data[byte + 2] = peak * (both + theirs);
      image.data[byte + 3] = 255;
    }
    own.putImageData(image, 0, 0);
    frame(context, colours.output, drawPicture(context, self, canvas, 1, 1));
  }

  function paintLand(context, self) {
    context.imageSmoothingEnabled = true;
    const [left, high] = self.place(-1, -1);
    const side = 2 * self.scale;
    context.drawImage(relief, left, high, side, side);
    frame(context, colours.line, [left, high, side, side]);
    const [x, y] = self.place(0, 0);
    stroke(context, colours, colours.input, 2, [[x - 6, y], [x + 6, y]]);
    stroke(context, colours, colours.input, 2, [[x, y - 6], [x, y + 6]]);
    const points = path.map((point) => self.place(...point));
    stroke(context, colours, colours.theta, 2, points);
    if (points.length < 40) for (const point of points) dot(context, ...point, 2.5, colours.theta);
    dot(context, ...points.at(-1), 6, "#fff", colours.theta);
  }

  function paintCurve(context, self) {
    const top = Math.max(...losses, 1e-12);
    const count = Math.max(losses.length - 1, 40);
    const at = (loss, k) => [
      6 + (k / count) * (self.size - 12), 8 + (1 - loss / top) * (self.height - 16),
    ];
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.beginPath();
    for (const level of [0, top]) {
      context.moveTo(...at(level, 0));
      context.lineTo(...at(level, count));
    }
    context.stroke();
    context.fillStyle = colours.muted;
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "right";
    context.fillText(`L = ${number(top, 3)}`, self.size - 8, 20);
    context.fillText("0", self.size - 8, self.height - 12);
    stroke(context, colours, colours.error, 2, losses.map(at));
    dot(context, ...at(losses.at(-1), losses.length - 1), 4, colours.error);
  }

  // --- The landscape, computed in the pauses: a frame has eight milliseconds ---

  let map = { key: "" };
  const relief = h("canvas", { width: CELLS, height: CELLS });
  let charting;
  let drawn = false;

  function chart() {
    const angle = Math.round(pose[2] * 20) / 20;
    const key = [state._picture, picture.width, state.blur, angle].join();
    if (key === map.key) return;
    map = { key, angle, values: new Array(CELLS * CELLS), next: 0 };
    charting ??= requestAnimationFrame(chartMore);
  }

  function chartMore() {
    charting = undefined;
    // Not in a frame that has been drawn in.
    if (drawn) {
      drawn = false;
      charting = requestAnimationFrame(chartMore);
      return;
    }
    const began = performance.now();
    while (map.next < CELLS * CELLS && performance.now() - began < 3) {
      const [column, row] = [map.next % CELLS, Math.floor(map.next / CELLS)];
      const [x, y] = [(2 * column + 1) / CELLS - 1, (2 * row + 1) / CELLS - 1];
      const [[a, b], [c, d]] = poseTheta([0, 0, map.angle]);
      // θ that puts the picture's middle at (x, y).
      const one = [-(a * x + b * y), -(c * x + d * y), map.angle];
      map.values[map.next++] = misfit(picture, picture, one).loss;
    }
    if (map.next < CELLS * CELLS) charting = requestAnimationFrame(chartMore);
    else {
      const context = relief.getContext("2d");
      const image = context.createImageData(CELLS, CELLS);
      const top = Math.max(...map.values, 1e-12);
      map.values.forEach((loss, k) => {
        // Dark is low: the path runs into the valley.
        const light = 30 + 205 * Math.sqrt(loss / top);
        image.data.set([light, light, light, 255], 4 * k);
      });
      context.putImageData(image, 0, 0);
      draw();
    }
  }

  // --- Dragging the start ---

  const round = (value) => Math.round(Math.min(Math.max(value, -1), 1) * 100) / 100;

  function startAt(x, y) {
    stop();
    const [[a, b], [c, d]] = poseTheta(pose);
    const [px, py] = [round(x), round(y)];
    begin([-(a * px + b * py) + 0, -(c * px + d * py) + 0, pose[2]]);
  }

  function begin(next) {
    pose = next;
    own = poseTheta(pose);
    restart();
    save(model, { theta: own, steps: 0, loss: now.loss });
    draw();
    announce(sentence());
  }

  const grips = [overlay, land].map((self, k) => handle(self, {
    name: k ? "Start, on the landscape" : "The picture",
    help: "Arrow keys move it, with Shift in larger steps; descent starts from there",
    kind: k ? "start" : "o",
    moved: startAt,
    nudged(dx, dy) {
      const [x, y] = place(pose);
      startAt(x + dx * 0.02, y + dy * 0.02);
    },
  }));
  for (const self of [overlay, land]) {
    let pressed = false;
    self.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pressed = true;
      self.canvas.setPointerCapture(event.pointerId);
      startAt(...self.locate(event));
    });
    self.canvas.addEventListener("pointermove", (event) => {
      if (pressed) startAt(...self.locate(event));
    });
    self.canvas.addEventListener("lostpointercapture", () => { pressed = false; });
  }

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });
  const theta = h("p", { class: "facts" });

  function sentence() {
    const count = losses.length - 1;
    const after = count ? `After ${count} step${count === 1 ? "" : "s"} ` : "At the start ";
    const [x, y] = place(pose);
    const off = [];
    if (number(x) !== "0.00") off.push(`${number(Math.abs(x))} to the ${x < 0 ? "left" : "right"}`);
    if (number(y) !== "0.00") off.push(`${number(Math.abs(y))} ${y < 0 ? "above" : "below"}`);
    const turned = Math.abs((pose[2] * 180) / Math.PI);
    if (number(turned, 0) !== "0") off.push(`${number(turned, 0)}° turned`);
    return `${after}the loss is ${number(now.loss, 4)}; the picture lies ${
      off.length ? `${off.join(", ")}.` : "in its place."}`;
  }

  function aside() {
    if (arrived()) return "It has found its place.";
    if (size(now.gradient) < 0.03 || (losses.length > 8 && losses.at(-9) - now.loss < 1e-4 * losses[0])) {
      return losses.length > 8
        ? "Descent has stalled: whichever way it looks, the loss does not fall. Blur, and it sees farther."
        : "The loss is nearly flat here.";
    }
    return "Each step goes down the slope: θ ← θ − η ∂L/∂θ.";
  }

  // --- Controls ---

  const stepper = h("button", {
    type: "button", class: "chip",
    onclick() {
      stop();
      step();
      draw();
      announce(sentence());
    },
  }, "Step");
  const player = h("button", { type: "button", class: "chip", onclick: play }, "Play");
  let timer;

  // Twenty steps a second; for readers who asked for stillness, fifty at once.
  function play() {
    if (playing) {
      stop();
      draw();
      return;
    }
    if (stillness()) {
      for (let k = 0; k < 50 && !done(); k++) step();
      draw();
      announce(sentence());
      return;
    }
    playing = true;
    timer = setInterval(() => {
      step();
      if (done()) {
        stop();
        announce(sentence());
      }
      draw();
    }, 50);
    draw();
  }

  function stop() {
    playing = false;
    clearInterval(timer);
  }

  const change = (values) => {
    save(model, values);
    announce(sentence());
  };
  const blurs = options("Blur", { 0: "None", 2: "2 pixels", 4: "4 pixels" },
    (value) => change({ blur: Number(value) }));
  const rates = options("Step size η", { 0.03: "0.03", 0.1: "0.1", 0.3: "0.3" },
    (value) => change({ rate: Number(value) }));
  const turns = options("Find", { false: "Shift", true: "Shift and turn" }, (value) => {
    stop();
    save(model, { turn: value === "true" });
    // Something to find: a turn to begin with, or none.
    begin([pose[0], pose[1], value === "true" ? pose[2] || 0.5 : 0]);
  });
  const choice = pictureChoice((name) => change({ _picture: name }));
  const again = h("button", {
    type: "button", class: "chip",
    onclick() {
      stop();
      begin(start);
    },
  }, "Back to the start");
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      stop();
      save(model, first);
      begin(thetaPose(first.theta));
    },
  }, "Reset");

  // --- All together ---

  const draw = frames(() => {
    drawn = true;
    for (const self of [overlay, land, curve]) self.draw();
    const [x, y] = place(pose);
    for (const grip of grips) grip.put(x, y, `${number(x)}, ${number(y)}`);
    blurs.update(state.blur);
    rates.update(state.rate);
    turns.update(state.turn);
    choice.update(pictures, state._picture);
    player.textContent = playing ? "Pause" : stillness() ? "50 steps" : "Play";
    player.setAttribute("aria-pressed", String(playing));
    words.textContent = sentence();
    facts.textContent = aside();
    const row = (values) => values.map((value) => number(value)).join(", ");
    theta.textContent = `θ = (${row(own[0])}; ${row(own[1])}),  ∂L/∂θ₁₃ = ${
      number(now.gradient[0], 4)}, ∂L/∂θ₂₃ = ${number(now.gradient[1], 4)}`;
    overlay.canvas.setAttribute("aria-label", `The picture over its target. ${sentence()}`);
  });

  const take = async () => {
    if (model.get("_pictures") !== known) {
      known = model.get("_pictures");
      loading = loadPictures(known, pictures);
    }
    // The choice of a picture comes right after the picture, which may not be there yet.
    pictures = await loading;
    const before = state;
    state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    if (!pictures[state._picture]) state._picture = before._picture;
    const fresh = ["blur", "_picture"].some((name) => state[name] !== before[name]);
    if (fresh || known !== seen) {
      seen = known;
      prepare();
      restart();
    }
    // θ that did not come from here.
    if (state.theta !== own && state.theta.flat().some((v, k) => v !== own.flat()[k])) {
      stop();
      pose = thetaPose(state.theta);
      own = state.theta;
      restart();
    }
    draw();
  };
  let known = model.get("_pictures");
  let seen = known;
  let loading = Promise.resolve(pictures);
  const unfollow = follow(model, Object.fromEntries([...names, "_pictures"].map((name) => [name, take])));
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [overlay, land, curve]) self.onresize = draw;
  prepare();
  restart();
  const panel = (kind, name, said, self) => h("figure", { class: kind },
    h("figcaption", {}, h("b", {}, name), h("span", {}, said)), self.element);
  root.append(
    h("div", { class: "trio duo" },
      panel("output", "Output", " over its target (blue): drag it", overlay),
      panel("land", "Loss", " at each place: dark is low", land)),
    h("figure", { class: "curve" }, h("figcaption", {}, h("b", {}, "Loss"), h("span", {}, " step by step")),
      curve.element),
    h("div", { class: "told" }, words, facts, theta),
    h("div", { class: "bar" },
      h("div", { class: "chips", role: "group", "aria-label": "Descent" }, stepper, player, again),
      blurs.element, rates.element, turns.element, choice.element, ownPicture(model, root, announce), reset));
  colours = palette(root);
  draw();
  return () => {
    unfollow();
    stop();
    cancelAnimationFrame(charting);
    for (const self of [overlay, land, curve]) self.stop();
  };
});
