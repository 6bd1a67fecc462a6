// The bilinear explorable: a point among few pixels, its weights, its value and the two slopes.

import { axisTaps, sampleAt, slopesAt } from "./maths.js";
import { field } from "./fields.js";
import { dot, explorable, follow, frame, frames, h, handle, label, number } from "./ui.js";
import { options, palette, plane, save, stroke } from "./ui.js";

const MODES = { nearest: "Nearest", bilinear: "Bilinear", bicubic: "Bicubic" };

// `stn_tutorial.widgets` has the same pictures under the same names.
const PATTERNS = {
  ramp: ["Ramp", (row, column) => 5 * row + column],
  edge: ["Edge", (row, column) => Number(column > 2)],
  pixel: ["One pixel", (row, column) => Number(row === 2 && column === 2)],
  constant: ["Constant", () => 1],
};

export const pattern = (name) => Array.from({ length: 5 }, (_, row) =>
  Array.from({ length: 5 }, (_, column) => PATTERNS[name][1](row, column)));

// Chapter 5's colours: upper left, upper right, lower left, lower right.
const QUARTERS = ["#56B4E9", "#0072B2", "#F0E442", "#CC79A7"];

explorable("bilinear", ({ model, root, announce, onTheme }) => {
  const first = { picture: model.get("picture"), point: model.get("point"), mode: model.get("mode") };
  let { picture: rows, point, mode } = first;
  let picture;
  let scale;
  let colours = palette(root);

  function take() {
    rows = model.get("picture");
    point = model.get("point");
    mode = model.get("mode");
    const data = rows.flat();
    picture = { width: rows[0].length, height: rows.length, channels: 1, data };
    scale = [Math.min(0, ...data), Math.max(...data, 0)];
    if (scale[0] === scale[1]) scale[1] += 1;
    const view = {
      x: (picture.width - 1) / 2, y: (picture.height - 1) / 2,
      reach: Math.max(picture.width, picture.height) / 2 + 0.8,
    };
    for (const self of [stage, across, down]) Object.assign(self.view, view);
  }

  const brief = (value) => number(value, 2).replace(/\.?0+$/, "");
  // 0 to 1, black to white.
  const shade = (value) => Math.min(Math.max((value - scale[0]) / (scale[1] - scale[0]), 0), 1);
  const grey = (value) => `rgb(${[1, 1, 1].map(() => Math.round(255 * shade(value))).join(" ")})`;
  const isInside = (column, row) =>
    column >= 0 && column < picture.width && row >= 0 && row < picture.height;
  const valueAt = (column, row) => (isInside(column, row) ? rows[row][column] : 0);

  // --- The pixels and the point ---

  const stage = plane("The pixels, with the point and its weights", paintStage, {});

  function paintStage(context, self) {
    const unit = self.scale;
    const square = (column, row) => [...self.place(column - 0.5, row - 0.5), unit, unit];
    context.font = `${Math.max(11, unit * 0.24)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    // Outside all is zero, and hatched: it is read, and it is not there.
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.beginPath();
    for (let k = -self.size; k < self.size; k += 7) {
      context.moveTo(k, 0);
      context.lineTo(k + self.size, self.size);
    }
    context.stroke();
    rows.forEach((row, r) => row.forEach((value, c) => {
      context.fillStyle = grey(value);
      context.fillRect(...square(c, r));
      context.strokeStyle = "rgba(128, 128, 128, 0.6)";
      context.strokeRect(...square(c, r));
    }));
    const [left, top] = self.place(-0.5, -0.5);
    frame(context, colours.input, [left, top, picture.width * unit, picture.height * unit]);
    const [xs, ys] = point.map((position) => axisTaps(position, mode));
    if (mode === "bilinear") paintAreas(context, self, xs, ys);
    else {
      for (const [row, wy] of ys) {
        for (const [column, wx] of xs) {
          // As strong as the weight; a negative one has the colour of errors.
          context.globalAlpha = Math.min(0.12 + 0.75 * Math.abs(wx * wy), 0.8);
          context.fillStyle = wx * wy < 0 ? colours.error : QUARTERS[0];
          context.fillRect(...square(column, row));
          context.globalAlpha = 1;
          context.strokeStyle = colours.input;
          context.lineWidth = 1.5;
          context.strokeRect(...square(column, row));
        }
      }
    }
    rows.forEach((row, r) => row.forEach((value, c) => {
      context.fillStyle = shade(value) > 0.55 ? "#000" : "#fff";
      const [x, y] = self.place(c, r);
      const held = xs.some(([column]) => column === c) && ys.some(([one]) => one === r);
      if (held) label(context, brief(value), x, y);
      else context.fillText(brief(value), x, y);
    }));
    // Where the strips' curves run.
    const [x, y] = self.place(...point);
    for (const line of [[[0, y], [self.size, y]], [[x, 0], [x, self.size]]]) {
      stroke(context, colours, colours.output, 1.5, line, false, [3, 4]);
    }
    dot(context, x, y, 7, "#fff", colours.input);
  }

  // The point cuts the square between four centres into four; each pixel's weight is the area
  // opposite to it.
  function paintAreas(context, self, xs, ys) {
    const cuts = [xs, ys].map(([[low]], axis) => [low, point[axis], low + 1]);
    for (const k of [0, 1, 2, 3]) {
      const [c, r] = [k % 2, k >> 1];
      const [x0, y0] = self.place(cuts[0][1 - c], cuts[1][1 - r]);
      const [x1, y1] = self.place(cuts[0][2 - c], cuts[1][2 - r]);
      context.fillStyle = QUARTERS[k];
      context.globalAlpha = 0.72;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.globalAlpha = 1;
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      dot(context, ...self.place(xs[c][0], ys[r][0]), self.scale * 0.26, "#fff", QUARTERS[k]);
    }
  }

  const range = (value, count) => Math.min(Math.max(value, -1), count);
  const setPoint = (x, y) => {
    // To a hundredth, a number that a reader can write down.
    const place = [range(x, picture.width), range(y, picture.height)].map(
      (value) => Math.round(value * 100) / 100 + 0);
    save(model, { point: place });
    announce(sentence());
  };

  const grip = handle(stage, {
    name: "Point",
    help: "Arrow keys move it by a tenth of a pixel, with Shift by a whole one",
    kind: "point",
    jump: true,
    moved: setPoint,
    nudged: (dx, dy) => setPoint(point[0] + dx / 10, point[1] + dy / 10),
  });
  let pressed = false;
  stage.canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pressed = true;
    stage.canvas.setPointerCapture(event.pointerId);
    setPoint(...stage.locate(event));
  });
  stage.canvas.addEventListener("pointermove", (event) => {
    if (pressed) setPoint(...stage.locate(event));
  });
  stage.canvas.addEventListener("lostpointercapture", () => { pressed = false; });

  // --- The value along the row and along the column through the point ---

  const across = plane("The value along the row through the point, with its slope",
    (context, self) => paintStrip(context, self, 0), {}, 0.3);
  const down = plane("The value along the column through the point, with its slope",
    (context, self) => paintStrip(context, self, 1), {}, 1 / 0.3);

  function paintStrip(context, self, axis) {
    const length = axis ? self.height : self.size;
    const depth = axis ? self.size : self.height;
    const margin = 0.26 * (scale[1] - scale[0]);
    const unit = length / 2 / self.view.reach;
    const middle = axis ? self.view.y : self.view.x;
    // Values grow upwards, and to the right.
    const at = (position, value) => {
      const along = length / 2 + (position - middle) * unit;
      const share = (value - scale[0] + margin) / (scale[1] - scale[0] + 2 * margin);
      return axis ? [share * depth, along] : [along, (1 - share) * depth];
    };
    const value = (position) =>
      sampleAt(picture, axis ? [point[0], position] : [position, point[1]], mode)[0];
    const ends = [middle - self.view.reach, middle + self.view.reach];
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(...at(ends[0], 0));
    context.lineTo(...at(ends[1], 0));
    context.stroke();
    const count = axis ? picture.height : picture.width;
    const points = [];
    const step = 1.5 / unit;
    for (let position = ends[0]; position <= ends[1]; position += step) {
      points.push(at(position, value(position)));
    }
    stroke(context, colours, colours.output, 2, points);
    for (let k = 0; k < count; k++) dot(context, ...at(k, value(k)), 2.5, colours.output);
    const here = value(point[axis]);
    const slope = slopesAt(picture, point, mode)[axis][0];
    // The tangent: one pixel long on either side, less where it is steep.
    const tall = Math.hypot(unit, (slope * depth) / (scale[1] - scale[0] + 2 * margin));
    const half = 0.9 * unit / tall;
    stroke(context, colours, colours.text, 2.5, [-half, half].map((run) =>
      at(point[axis] + run, here + slope * run)));
    dot(context, ...at(point[axis], here), 6, "#fff", colours.input);
  }

  // --- What is computed ---

  const table = h("table", { class: "weights" });
  const sums = h("div", { class: "equation" });
  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  const bracket = (value) => (value < 0 ? `(${brief(value)})` : brief(value));

  function fillTable() {
    const [xs, ys] = point.map((position) => axisTaps(position, mode));
    const named = (kind, index, weight, scope) => h("th", { scope },
      h("span", {}, `${kind} ${number(index, 0)}`), h("b", {}, number(weight)));
    table.replaceChildren(
      h("caption", { class: "unseen" }, "The pixels that are read: weight times value"),
      h("thead", {}, h("tr", {}, h("td", {}, "weight × value"),
        ...xs.map(([column, weight]) => named("column", column, weight, "col")))),
      h("tbody", {}, ...ys.map(([row, wy], r) => h("tr", {}, named("row", row, wy, "row"),
        ...xs.map(([column, wx], c) => h("td", {},
          h("i", {
            class: "swatch",
            style: `background: ${mode === "bilinear" ? QUARTERS[2 * r + c] : grey(valueAt(column, row))}`,
          }),
          h("b", {}, number(wx * wy)),
          isInside(column, row) ? ` × ${brief(valueAt(column, row))}` : " × 0, outside"))))));
    table.classList.toggle("many", mode === "bicubic");
  }

  function fillSums() {
    const value = sampleAt(picture, point, mode)[0];
    const slopes = slopesAt(picture, point, mode).map(([slope]) => slope);
    const line = (name, slope, parts, side) => h("div", {}, h("i", {}, name), " = ", ...parts,
      h("b", {}, number(slope)), " per pixel = ", h("b", {}, number((slope * side) / 2)),
      ` per normalised unit (× ${side}/2)`);
    let parts = [[], []];
    if (mode === "bilinear") {
      const [[[left, wl], [right, wr]], [[top, wt], [bottom, wb]]] = point.map(
        (position) => axisTaps(position, mode));
      const step = (weight, to, from) => h("span", {}, `${number(weight)} · (${
        brief(valueAt(...to))} − ${bracket(valueAt(...from))})`);
      parts = [
        [step(wt, [right, top], [left, top]), " + ", step(wb, [right, bottom], [left, bottom]), " = "],
        [step(wl, [left, bottom], [left, top]), " + ", step(wr, [right, bottom], [right, top]), " = "],
      ];
    }
    sums.replaceChildren(
      h("div", {}, h("i", {}, "V"), " = sum of all weight × value = ", h("b", {}, number(value))),
      line("∂V/∂x", slopes[0], parts[0], picture.width),
      line("∂V/∂y", slopes[1], parts[1], picture.height));
  }

  const COUNTS = { nearest: "one pixel gives", bilinear: "four pixels give", bicubic: "sixteen pixels give" };

  function sentence() {
    const [dx, dy] = slopesAt(picture, point, mode).map(([slope]) => slope);
    const flat = mode === "nearest" || (number(dx) === "0.00" && number(dy) === "0.00");
    const value = number(sampleAt(picture, point, mode)[0]);
    const where = `At (${brief(point[0])}, ${brief(point[1])}) ${COUNTS[mode]} ${value}; `;
    return where + (flat ? "a small step changes nothing: both slopes are 0."
      : `the slope is ${number(dx)} to the right and ${number(dy)} downwards.`);
  }

  function aside() {
    if (mode === "nearest") return "Rounded positions: whichever way the point moves, no slope tells.";
    const [x, y] = point.map(Number.isInteger);
    if (mode === "bilinear" && (x || y)) {
      return `${x && y ? "x and y are" : x ? "x is" : "y is"} whole; cells are half open: `
        + `the slope is the one ${x && y ? "to the right and downwards" : x ? "to the right" : "downwards"}.`;
    }
    return mode === "bilinear" ? "Each pixel's weight is the area opposite to it, in its colour."
      : "Weights may be negative (vermilion): the value can leave the range of the pixels.";
  }

  // --- Controls ---

  const [xField, yField] = ["x", "y"].map((name, axis) => field({
    name, label: `${name} of the point, in pixels`, low: -1, high: 1, step: 0.01, jump: 0.1,
    onedit(value) {
      save(model, { point: point.map((one, k) => (k === axis ? value : one)) });
      announce(sentence());
    },
  }));
  const modes = options("Sampling", MODES, (chosen) => {
    save(model, { mode: chosen });
    announce(sentence());
  });
  const labels = Object.fromEntries(Object.entries(PATTERNS).map(([key, [said]]) => [key, said]));
  const patterns = options("Picture", labels, (name) => {
    const own = pattern(name);
    save(model, { picture: own, point: [Math.min(point[0], 5), Math.min(point[1], 5)] });
    announce(sentence());
  });
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      save(model, first);
      announce(sentence());
    },
  }, "Reset");

  // --- All together ---

  const draw = frames(() => {
    take();
    for (const self of [stage, across, down]) self.draw();
    grip.put(...point, point.map((value) => number(value)).join(", "));
    xField.bounds(-1, picture.width);
    yField.bounds(-1, picture.height);
    xField.update(point[0]);
    yField.update(point[1]);
    modes.update(mode);
    const same = Object.keys(PATTERNS).find((name) =>
      JSON.stringify(pattern(name)) === JSON.stringify(rows));
    patterns.update(same);
    fillTable();
    fillSums();
    words.textContent = sentence();
    facts.textContent = aside();
    stage.canvas.setAttribute("aria-label", `The pixels, with the point and its weights. ${sentence()}`);
  });

  const unfollow = follow(model, {
    point() {
      // At once: the next press of a key goes on from here.
      point = model.get("point");
      draw();
    },
    mode() {
      mode = model.get("mode");
      draw();
    },
    picture: draw,
  });
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [stage, across, down]) self.onresize = draw;

  root.append(
    h("div", { class: "split" },
      h("figure", { class: "reading input" },
        h("figcaption", {}, h("b", {}, "Input"), h("span", {}, " and the value along the dashed lines")),
        stage.element, down.element, across.element),
      h("div", { class: "working" }, table, sums)),
    h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" }, h("div", { class: "fields" }, xField.element, yField.element),
      modes.element, patterns.element, reset));
  colours = palette(root);
  take();
  draw();
  return () => {
    unfollow();
    for (const self of [stage, across, down]) self.stop();
  };
});
