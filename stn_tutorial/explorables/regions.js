// The regions explorable: a box over a feature map, and what RoIPool and RoIAlign read of it.

import { alignedMiddles, blockMeans, exactMeans, lookedBeside, pooledMiddles } from "./boxes.js";
import { roiAlign, roiPool } from "./boxes.js";
import { field } from "./fields.js";
import { dot, explorable, follow, frame, frames, h, handle, label, loadPictures, number } from "./ui.js";
import { options, palette, pictureChoice, plane, save, setAttribute, setText, stroke } from "./ui.js";
import { ownPicture } from "./own.js";

const SAMPLES = { 1: "1×1", 2: "2×2", 3: "3×3", "-1": "As many as fit" };
const GRIPS = ["Upper left corner", "Upper right corner", "Lower left corner", "Lower right corner"];
const READERS = { pool: "RoIPool", align: "RoIAlign" };

explorable("regions", ({ model, root, pictures, announce, onTheme }) => {
  const names = [
    "box", "bins", "stride", "aligned", "sampling_ratio", "pool", "bin", "shown", "under", "_picture",
  ];
  const traits = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const first = traits();
  let state = first;
  let colours = palette(root);
  let known = model.get("_pictures");
  let grey; // the picture, {width, height, data, canvas}
  let map; // its features, likewise
  let found; // what is read

  // --- What is computed ---

  // Values up to 255 as a canvas of as many pixels.
  function painted({ width, height, data }) {
    const canvas = h("canvas", { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    data.forEach((value, k) => image.data.set([value, value, value, 255], 4 * k));
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function prepare() {
    const source = pictures[state._picture];
    if (grey?.source !== source) {
      const { width, height, channels, data } = source;
      const values = Float64Array.from({ length: width * height }, (_, k) => (channels === 1 ? data[k]
        : 0.299 * data[3 * k] + 0.587 * data[3 * k + 1] + 0.114 * data[3 * k + 2]));
      grey = { source, width, height, data: values };
      grey.canvas = painted(grey);
      map = null;
      const reach = Math.max(width, height) / 2 + margin();
      Object.assign(stage.view, { x: width / 2, y: height / 2, reach });
    }
    if (map?.stride !== state.stride) {
      map = { stride: state.stride, ...blockMeans(grey, state.stride) };
      map.canvas = painted(map);
    }
  }

  // How far beyond the picture a box may be dragged.
  const margin = () => Math.max(8, Math.max(grey.width, grey.height) / 8);

  function compute() {
    const { box, bins, stride, aligned, sampling_ratio: ratio } = state;
    const pool = roiPool(map, box, bins, 1 / stride, state.pool === "mean");
    const align = roiAlign(map, box, bins, 1 / stride, ratio, aligned);
    const beside = (middles) => [
      lookedBeside(middles(0), box[0], box[2], stride), lookedBeside(middles(1), box[1], box[3], stride),
    ];
    pool.beside = beside((axis) => pooledMiddles(axis ? pool.ys : pool.xs));
    align.beside = beside((axis) => alignedMiddles(axis ? align.ys : align.xs));
    const truth = exactMeans(grey, box, bins);
    for (const one of [pool, align]) {
      one.errors = one.values.map((value, k) => value - truth[k]);
      const known = one.errors.filter((error) => !Number.isNaN(error));
      one.off = known.reduce((sum, error) => sum + Math.abs(error), 0) / known.length;
    }
    found = { truth, pool, align };
  }

  const chosen = () => state.bin.map((one) => Math.min(one, state.bins - 1));

  // --- What it says ---

  const brief = (value) => number(value, 1);
  const signed = (value) => (value > 0 && brief(value) !== "0.0" ? `+${brief(value)}` : brief(value));

  // Where it looks, beside where it should: in words.
  function away([dx, dy]) {
    if (!Number.isFinite(dx + dy)) return "nowhere";
    const parts = [];
    if (brief(dx) !== "0.0") parts.push(`${brief(Math.abs(dx))} ${dx < 0 ? "left" : "right"}`);
    if (brief(dy) !== "0.0") parts.push(`${brief(Math.abs(dy))} ${dy < 0 ? "up" : "down"}`);
    return parts.join(", ") || "in place";
  }

  const average = (values) => {
    const seen = values.filter(Number.isFinite);
    return seen.reduce((sum, value) => sum + value, 0) / seen.length;
  };

  function sentence() {
    if (Number.isNaN(found.pool.off)) return "The box lies outside the picture: there is nothing to read.";
    return `On average RoIPool is off by ${brief(found.pool.off)} of 255, RoIAlign by ${
      brief(found.align.off)}.`;
  }

  function aside() {
    const where = Object.entries(READERS).map(([key, name]) =>
      `${name} ${away(found[key].beside.map(average))}`);
    return `Where they look, in pixels of the picture, on average: ${where.join("; ")}.`;
  }

  // --- The map and the box ---

  const stage = plane("The features with the box", paintStage, {});
  const spans = ([low, high]) => Array.from({ length: state.bins + 1 }, (_, k) =>
    low + ((high - low) * k) / state.bins);

  function paintStage(context, self) {
    if (!found) return;
    const { box, stride, shown } = state;
    const [row, column] = chosen();
    const rectangle = (x0, y0, x1, y1) => {
      const [left, top] = self.place(x0, y0);
      const [right, bottom] = self.place(x1, y1);
      return [left, top, right - left, bottom - top];
    };
    const whole = rectangle(0, 0, grey.width, grey.height);
    const below = state.under === "picture";
    context.imageSmoothingEnabled = false;
    const [left, top, wide, high] = rectangle(0, 0, map.width * stride, map.height * stride);
    if (below) context.drawImage(grey.canvas, ...whole);
    else context.drawImage(map.canvas, left, top, wide, high);
    if (stride * self.scale > 5) {
      // Thin rectangles take less time to draw than one path of all lines.
      context.fillStyle = "rgba(128, 128, 128, 0.55)";
      for (let k = 0; k <= map.width; k++) {
        context.fillRect(left + (k * wide) / map.width - 0.5, top, 1, high);
      }
      for (let k = 0; k <= map.height; k++) {
        context.fillRect(left, top + (k * high) / map.height - 0.5, wide, 1);
      }
    }
    frame(context, colours.input, whole);

    const [xs, ys] = [spans([box[0], box[2]]), spans([box[1], box[3]])];
    if (shown !== "align") {
      const cells = (r, c) => {
        const [[x0, x1], [y0, y1]] = [found.pool.xs[c], found.pool.ys[r]];
        return x0 < x1 && y0 < y1 ? rectangle(...[x0, y0, x1, y1].map((edge) => edge * stride)) : null;
      };
      const mine = cells(row, column);
      if (mine) {
        context.globalAlpha = 0.5;
        context.fillStyle = colours.error;
        context.fillRect(...mine);
        context.globalAlpha = 1;
      }
      // A little smaller than they are: where two overlap, both are seen.
      context.beginPath();
      found.pool.ys.forEach((_, r) => found.pool.xs.forEach((__, c) => {
        const one = cells(r, c);
        if (one) context.rect(one[0] + 2, one[1] + 2, one[2] - 4, one[3] - 4);
      }));
      context.strokeStyle = colours.error;
      context.lineWidth = 1.5;
      context.stroke();
    }
    const line = (x0, y0, x1, y1, width) =>
      stroke(context, colours, colours.theta, width, [self.place(x0, y0), self.place(x1, y1)]);
    for (const x of xs.slice(1, -1)) line(x, box[1], x, box[3], 1);
    for (const y of ys.slice(1, -1)) line(box[0], y, box[2], y, 1);
    const outline = (x0, y0, x1, y1, width) => stroke(context, colours, colours.theta, width,
      [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map((point) => self.place(...point)), true);
    outline(...box, 2.25);
    outline(xs[column], ys[row], xs[column + 1], ys[row + 1], 2.75);
    if (shown !== "pool") paintSamples(context, self, row, column);
    // From the middle of the bin to the middle of what is read for it.
    const from = [xs[column] + xs[column + 1], ys[row] + ys[row + 1]].map((sum) => sum / 2);
    for (const [key, colour] of [["pool", colours.error], ["align", colours.grid]]) {
      const by = [found[key].beside[0][column], found[key].beside[1][row]];
      if ((shown === "both" || shown === key) && Number.isFinite(by[0] + by[1])) {
        arrow(context, colour, self.place(...from), self.place(from[0] + by[0], from[1] + by[1]));
      }
    }
  }

  function paintSamples(context, self, row, column) {
    const { xs, ys } = found.align;
    const mine = (k, each, one) => Math.floor(k / each) === one;
    context.imageSmoothingEnabled = true; // the dots stand between the screen's pixels
    for (const own of [false, true]) {
      const [radius, rim] = own ? [3.6, 1.5] : [2.2, 0.9];
      const spot = spotOf(radius, rim, colours.grid);
      const half = radius + rim;
      ys.places.forEach((y, i) => xs.places.forEach((x, j) => {
        if ((mine(i, ys.each, row) && mine(j, xs.each, column)) !== own) return;
        const [px, py] = self.place((x + 0.5) * state.stride, (y + 0.5) * state.stride);
        context.drawImage(spot, px - half, py - half, 2 * half, 2 * half);
      }));
    }
  }

  // A dot with a white rim, drawn once: there may be hundreds.
  const spots = {};
  function spotOf(radius, rim, colour) {
    const ratio = devicePixelRatio || 1;
    const key = [radius, colour, ratio].join();
    if (!spots[key]) {
      const side = Math.ceil(2 * (radius + rim) * ratio);
      spots[key] = h("canvas", { width: side, height: side });
      const context = spots[key].getContext("2d");
      context.scale(side / 2 / (radius + rim), side / 2 / (radius + rim));
      dot(context, radius + rim, radius + rim, radius + rim, "#fff");
      dot(context, radius + rim, radius + rim, radius, colour);
    }
    return spots[key];
  }

  function arrow(context, colour, [x0, y0], [x1, y1]) {
    const length = Math.hypot(x1 - x0, y1 - y0);
    if (length < 3) return;
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
    const barb = Math.min(7, length);
    const ends = [1, -1].map((side) => [
      x1 - barb * (ux + 0.6 * side * uy), y1 - barb * (uy - 0.6 * side * ux)]);
    stroke(context, { halo: "#fff" }, colour, 2.5, [[x0, y0], [x1, y1], ends[0], [x1, y1], ends[1]]);
  }

  // --- What is read, bin by bin ---

  const answers = {
    true: answer("The picture's own mean over each bin", "true"),
    pool: answer("What RoIPool reads, and its errors", "pool"),
    align: answer("What RoIAlign reads, and its errors", "align"),
  };

  function answer(said, key) {
    const self = plane(said, (context) => paintAnswer(context, self, key), { x: 0.5, y: 0.5, reach: 0.53 });
    self.canvas.addEventListener("pointerdown", (event) => {
      if (!event.button) choose(...self.locate(event));
    });
    return self;
  }

  function paintAnswer(context, self, key) {
    if (!found) return;
    const { bins } = state;
    const values = key === "true" ? found.truth : found[key].values;
    const texts = key === "true" ? found.truth : found[key].errors;
    const [left, top] = self.place(0, 0);
    const side = self.scale / bins;
    context.font = `${Math.min(13, Math.max(10, side * 0.36))}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    values.forEach((value, k) => {
      const [x, y] = [left + (k % bins) * side, top + Math.floor(k / bins) * side];
      if (!Number.isNaN(value)) {
        const light = Math.round(Math.min(Math.max(value, 0), 255));
        context.fillStyle = `rgb(${light} ${light} ${light})`;
        context.fillRect(x, y, side + 0.5, side + 0.5);
      }
      const error = key === "true" ? 0 : Math.abs(texts[k]);
      if (error >= 2) {
        // The wider, the larger the error, up to a quarter of 255.
        const wide = Math.max(1.5, Math.min(error / 64, 1) * side * 0.14);
        context.strokeStyle = colours.error;
        context.lineWidth = wide;
        context.strokeRect(x + wide / 2 + 0.5, y + wide / 2 + 0.5, side - wide - 1, side - wide - 1);
      }
      if (side >= 24 && Number.isFinite(texts[k])) {
        const text = number(texts[k], 0);
        label(context, key !== "true" && texts[k] >= 0.5 ? `+${text}` : text, x + side / 2, y + side / 2);
      }
    });
    frame(context, key === "true" ? colours.input : colours.output, [left, top, self.scale, self.scale]);
    const [row, column] = chosen();
    const [x, y] = [left + column * side, top + row * side];
    stroke(context, colours, colours.theta, 2.5,
      [[x, y], [x + side, y], [x + side, y + side], [x, y + side]], true);
  }

  // --- Moving the box ---

  const most = (axis) => (axis ? grey.height : grey.width) + margin();
  const within = (value, axis) => Math.min(Math.max(value, -margin()), most(axis));

  function setBox(box) {
    save(model, { box });
    announce(sentence());
  }

  // An edge goes where it is told, and never past the one across.
  function setEdges(edges) {
    const box = [...state.box];
    for (const [k, value] of Object.entries(edges).map(([key, one]) => [Number(key), one])) {
      const edge = within(value, k % 2);
      box[k] = k < 2 ? Math.min(edge, box[k + 2] - 1) : Math.max(edge, box[k - 2] + 1);
    }
    setBox(box);
  }

  function moveBox(dx, dy, from = state.box) {
    const by = [dx, dy].map((step, axis) => Math.min(Math.max(
      Math.round(step), -margin() - from[axis]), most(axis) - from[axis + 2]));
    setBox(from.map((edge, k) => edge + by[k % 2]));
  }

  const help = "Arrow keys move it by a pixel, with Shift by ten";
  const middle = handle(stage, {
    name: "Box", help, kind: "point",
    moved(x, y) {
      const [cx, cy] = centre();
      moveBox(x - cx, y - cy);
    },
    nudged: (dx, dy) => moveBox(dx, dy),
  });
  const centre = () => [state.box[0] + state.box[2], state.box[1] + state.box[3]].map((sum) => sum / 2);
  const grips = GRIPS.map((name, k) => {
    const [i, j] = [k % 2 ? 2 : 0, k > 1 ? 3 : 1];
    return handle(stage, {
      name, help, kind: "knot",
      moved: (x, y) => setEdges({ [i]: Math.round(x), [j]: Math.round(y) }),
      nudged: (dx, dy) => setEdges({ [i]: state.box[i] + dx, [j]: state.box[j] + dy }),
    });
  });

  // In pixels of the picture, which may have 256 and more.
  for (const one of [middle, ...grips]) {
    setAttribute(one, "aria-valuemin", -400);
    setAttribute(one, "aria-valuemax", 400);
  }

  let held;
  stage.canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = stage.locate(event);
    const [left, top, right, bottom] = state.box;
    if (event.button || x < left || x > right || y < top || y > bottom) return;
    held = { x, y, box: state.box };
    stage.canvas.setPointerCapture(event.pointerId);
  });
  stage.canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = stage.locate(event);
    moveBox(x - held.x, y - held.y, held.box);
  });
  stage.canvas.addEventListener("lostpointercapture", () => { held = null; });

  // --- Choosing a bin ---

  function choose(x, y) {
    const at = (part) => Math.min(Math.max(Math.floor(part * state.bins), 0), state.bins - 1);
    save(model, { bin: [at(y), at(x)] });
  }

  const picked = handle(answers.true, {
    name: "Bin", help: "Arrow keys choose another", kind: "point", jump: true,
    moved: choose,
    nudged(dx, dy) {
      const [row, column] = chosen();
      const step = (one, by) => Math.min(Math.max(one + Math.sign(by), 0), state.bins - 1);
      save(model, { bin: [step(row, dy), step(column, dx)] });
      announce(told());
    },
  });

  const cells = Object.fromEntries(["true", "pool", "align"].map((key) =>
    [key, [h("td"), h("td", { class: "amount" }), h("td"), h("td")]]));
  const caption = h("caption");
  const table = h("table", { class: "readings" }, caption,
    h("thead", {}, h("tr", {}, h("td"), ...["reads", "error", "from", "beside the bin"].map((text) =>
      h("th", { scope: "col" }, text)))),
    h("tbody", {}, ...Object.entries({ true: "Picture", ...READERS }).map(([key, name]) =>
      h("tr", { class: key }, h("th", { scope: "row" }, name), ...cells[key]))));

  function fill() {
    const [row, column] = chosen();
    const k = row * state.bins + column;
    const { truth, pool, align } = found;
    const count = ([from, to]) => Math.max(to - from, 0);
    const [wide, high] = [0, 1].map((axis) => (state.box[axis + 2] - state.box[axis]) / state.bins);
    const none = Number.isNaN(truth[k]);
    const rows = {
      true: [none ? "–" : brief(truth[k]), "", `${brief(wide)}×${brief(high)} pixels`, ""],
      pool: [brief(pool.values[k]), none ? "–" : signed(pool.errors[k]),
        `${count(pool.xs[column])}×${count(pool.ys[row])} features`, ""],
      align: [brief(align.values[k]), none ? "–" : signed(align.errors[k]),
        `${align.xs.each}×${align.ys.each} samples`, ""],
    };
    for (const key of ["pool", "align"]) {
      rows[key][3] = away([found[key].beside[0][column], found[key].beside[1][row]]);
    }
    for (const [key, texts] of Object.entries(rows)) texts.forEach((text, c) => setText(cells[key][c], text));
    setText(caption, `The bin in row ${row + 1}, column ${column + 1}`);
  }

  function told() {
    const texts = (key) => cells[key].map((cell) => cell.textContent);
    const [[truth], pool, align] = [texts("true"), texts("pool"), texts("align")];
    return `${caption.textContent}: the picture has ${truth}, RoIPool reads ${pool[0]}, ${pool[3]}, `
      + `RoIAlign ${align[0]}, ${align[3]}.`;
  }

  // --- Controls ---

  const change = (values) => {
    save(model, values);
    announce(sentence());
  };
  const edges = ["left", "top", "right", "bottom"].map((name, k) => field({
    name, label: `${name} edge of the box, in pixels`, low: -16, high: 144, step: 1, jump: 1,
    onedit: (value) => setEdges({ [k]: value }),
  }));
  const pick = {
    bins: options("Bins", { 2: "2×2", 3: "3×3", 4: "4×4", 7: "7×7" }, (value) => change({ bins: Number(value) })),
    stride: options("Stride", { 8: "8", 16: "16" }, (value) => change({ stride: Number(value) })),
    aligned: options("aligned", { false: "False", true: "True" }, (value) => change({ aligned: value === "true" })),
    sampling_ratio: options("Samples", SAMPLES, (value) => change({ sampling_ratio: Number(value) })),
    pool: options("RoIPool takes the", { max: "largest", mean: "mean" }, (value) => change({ pool: value })),
    shown: options("Draw", { both: "Both", ...READERS }, (value) => change({ shown: value })),
    under: options("On the", { features: "features", picture: "picture" }, (value) => change({ under: value })),
  };
  const choice = pictureChoice((name) => change({ _picture: name }));
  const reset = h("button", { type: "button", class: "chip quiet", onclick: () => change(first) }, "Reset");
  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  // --- All together ---

  const draw = frames(() => {
    prepare();
    compute();
    for (const self of [stage, ...Object.values(answers)]) self.draw();
    const { box, bins } = state;
    const place = (...values) => values.map((value) => number(value, 0)).join(", ");
    middle.put(...centre(), `from ${place(box[0], box[1])} to ${place(box[2], box[3])}`);
    grips.forEach((grip, k) => {
      const at = [box[k % 2 ? 2 : 0], box[k > 1 ? 3 : 1]];
      grip.put(...at, place(...at));
    });
    const [row, column] = chosen();
    picked.put((column + 0.5) / bins, (row + 0.5) / bins, `row ${row + 1}, column ${column + 1}`);
    edges.forEach((one, k) => {
      one.bounds(-margin(), most(k % 2));
      one.update(box[k]);
    });
    for (const [name, one] of Object.entries(pick)) one.update(state[name]);
    choice.update(pictures, state._picture);
    fill();
    setText(words, sentence());
    setText(facts, aside());
    setAttribute(stage.canvas, "aria-label", `The features with the box. ${sentence()}`);
    for (const [key, name] of Object.entries(READERS)) {
      setAttribute(answers[key].canvas, "aria-label", `What ${name} reads; its errors, row by row: ${
        found[key].errors.map((error) => (Number.isNaN(error) ? "none" : number(error, 0))).join(", ")}`);
    }
  });

  const take = async () => {
    // At once: the next press of a key goes on from here.
    const { _picture } = state;
    state = { ...traits(), _picture };
    draw();
    if (model.get("_pictures") !== known) {
      known = model.get("_pictures");
      loading = loadPictures(known, pictures);
    }
    // The choice of a picture comes right after the picture, which may not be there yet.
    pictures = await loading;
    const wanted = model.get("_picture");
    if (!pictures[wanted] || (wanted === state._picture && pictures[wanted] === grey?.source)) return;
    state = { ...state, _picture: wanted };
    prepare();
    // A picture that the reader brings may be smaller than the box.
    const { box } = state;
    if (box.some((edge, k) => within(edge, k % 2) !== edge)) {
      const { width, height } = grey;
      setBox([width, height, width, height].map((side, k) => Math.round(side * (k < 2 ? 0.2 : 0.75) * 10) / 10));
    }
    draw();
  };
  let loading = Promise.resolve(pictures);
  const unfollow = follow(model, Object.fromEntries([...names, "_pictures"].map((name) => [name, take])));
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [stage, ...Object.values(answers)]) self.onresize = draw;

  const panel = (kind, name, said, self) => h("figure", { class: kind },
    h("figcaption", {}, h("b", {}, name), h("span", {}, said)), self.element);
  root.append(
    h("div", { class: "looking regions" },
      panel("input", "Features", " with the box: drag it, or its corners", stage),
      h("div", { class: "answers" },
        panel("input", "True mean", "", answers.true),
        panel("output", "RoIPool", " and its error", answers.pool),
        panel("output", "RoIAlign", " and its error", answers.align))),
    h("div", { class: "told" }, words, facts),
    h("div", { class: "fields many" }, ...edges.map(({ element }) => element)),
    table,
    h("div", { class: "bar" }, pick.bins.element, pick.stride.element, pick.aligned.element,
      pick.sampling_ratio.element, pick.pool.element, pick.shown.element, pick.under.element,
      choice.element, ownPicture(model, root, announce), reset));
  colours = palette(root);
  prepare();
  draw();
  return () => {
    unfollow();
    for (const self of [stage, ...Object.values(answers)]) self.stop();
  };
});
