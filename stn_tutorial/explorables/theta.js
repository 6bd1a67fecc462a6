// The θ explorable: six numbers that move a picture.

import { compose, correctAspect, crop, describe, determinant, identity } from "./maths.js";
import { read, reflection, rotation, sampleAt, scaling, shear, source, taps } from "./maths.js";
import { transformPoint, translation, warpInto } from "./maths.js";
import { matrix } from "./fields.js";
import { css, dot, drawPicture, explorable, fitting, follow, frame, frames, glide } from "./ui.js";
import { h, handle, label, link, loadPictures, number, palette } from "./ui.js";
import { pictureChoice, plane, save, setAttribute, setText, stroke } from "./ui.js";
import { ownPicture } from "./own.js";

const PRESETS = {
  Identity: () => identity(),
  Rotation: (square) => square(rotation(30)),
  Zoom: () => scaling(2),
  "Shrink and shift": () => compose(scaling(0.25), translation(0.5, 0)),
  Crop: () => crop([-0.6, -0.8, 0.3, 0.1]),
  Shear: (square) => square(shear(0.5)),
  Reflection: () => reflection(90),
};

explorable("theta", ({ model, root, pictures, announce, onTheme }) => {
  const show = model.get("show");
  let theta = model.get("theta");
  let picture = pictures[model.get("_picture")];
  let colours = palette(root);
  let dragging = false;
  let pick;
  let output;
  const half = () => {
    const longer = Math.max(picture.width, picture.height);
    return [picture.width / longer, picture.height / longer];
  };
  // Between normalised coordinates and the planes', in which a pixel is square.
  const spread = ([x, y]) => [x * half()[0], y * half()[1]];
  const gather = (x, y) => [x / half()[0], y / half()[1]];

  function takePixel() {
    const given = model.get("pixel");
    if (given) pick = { column: given[0], row: given[1] };
  }

  function setPicture(name) {
    picture = pictures[name];
    const { width, height } = picture;
    const canvas = h("canvas", { width, height });
    const context = canvas.getContext("2d");
    output = { canvas, context, image: context.createImageData(width, height) };
    const [column, row] = [Math.round(width * 0.7 - 0.5), Math.round(height * 0.3 - 0.5)];
    takePixel();
    if (!pick || pick.column >= width || pick.row >= height) pick = { column, row };
  }

  // --- The two pictures ---

  const input = plane("Input with the sampling grid", paintInput, { x: 0, y: 0, reach: 1.45 });
  const result = plane("Output", paintOutput, { x: 0, y: 0, reach: 1.12 });
  const arrow = link();
  const stage = h("div", { class: "stage" },
    h("figure", { class: "input" },
      h("figcaption", {}, h("b", {}, "Input"), h("span", {}, " with the sampling grid")), input.element),
    h("figure", { class: "output" },
      h("figcaption", {}, h("b", {}, "Output"), h("span", {}, " what the grid reads")), result.element),
    arrow.element);

  function paintInput(context, self) {
    const box = drawPicture(context, self, picture.canvas, ...half());
    frame(context, colours.input, box);
    const at = (x, y) => self.place(...spread(transformPoint(theta, [x, y])));
    const few = picture.width * picture.height <= 400;
    const sides = [[1, 0], [0, 1]].map((end) => Math.hypot(...at(...end).map(
      (v, axis) => v - at(0, 0)[axis])));
    // Lines that would lie too close to be told apart are left out.
    const [columns, rows] = few ? [picture.width, picture.height]
      : sides.map((length) => (length > 48 ? 8 : length > 20 ? 4 : 2));
    const line = (...ends) => stroke(context, colours, colours.grid, 1.5, ends);
    for (let k = 1; k < columns; k++) line(at(2 * k / columns - 1, -1), at(2 * k / columns - 1, 1));
    for (let k = 1; k < rows; k++) line(at(-1, 2 * k / rows - 1), at(1, 2 * k / rows - 1));
    const corners = [at(-1, -1), at(1, -1), at(1, 1), at(-1, 1)];
    // The grid's rim is the output's frame, as the input sees it.
    stroke(context, colours, colours.output, 2.25, corners, true);
    if (few) {
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const [x, y] = at((2 * c + 1) / columns - 1, (2 * r + 1) / rows - 1);
          dot(context, x, y, 3, colours.grid);
        }
      }
    }
    // θ's columns: where x and y point, from where the origin went.
    for (const end of [at(1, 0), at(0, 1)]) stroke(context, colours, colours.theta, 2.25, [at(0, 0), end]);
    const [x, y] = self.place(...spread(looked().source));
    dot(context, x, y, 6.5, "#fff", colours.input);
  }

  function paintOutput(context, self) {
    const box = drawPicture(context, self, output.canvas, ...half());
    frame(context, colours.output, box);
  }

  // --- The grid's handles ---

  const [xTip, yTip, origin] = [
    ["x", 0, "Tip of the grid's x axis"],
    ["y", 1, "Tip of the grid's y axis"],
    ["o", 2, "Origin of the grid"],
  ].map(([kind, column, name]) => handle(input, {
    name,
    help: "Arrow keys move it, with Shift in larger steps",
    kind: `axis ${kind}`,
    start: () => { dragging = true; },
    end: () => { dragging = false; refit(); },
    moved(x, y) {
      const [px, py] = gather(x, y);
      const shift = column < 2 ? theta.map((row) => row[2]) : [0, 0];
      setColumn(column, px - shift[0], py - shift[1]);
    },
    nudged(dx, dy) {
      setColumn(column, theta[0][column] + dx * 0.02, theta[1][column] + dy * 0.02);
    },
  }));

  // To a hundredth, like the sliders: a number that a reader can write down.
  const round = (value) => Math.round(Math.min(Math.max(value, -20), 20) * 100) / 100;

  function setColumn(column, x, y) {
    glideTheta.stop();
    const next = theta.map((row) => [...row]);
    [next[0][column], next[1][column]] = [round(x), round(y)];
    edit(next);
  }

  // --- The picked pixel ---

  const looked = () => source(theta, pick.column, pick.row, picture);

  const pixel = handle(result, {
    name: "Pixel of the output",
    help: "Arrow keys pick another, with Shift in larger steps",
    kind: "pixel",
    jump: true,
    moved: (x, y) => pickAt(...gather(x, y)),
    nudged: (dx, dy) => setPick(pick.column + dx, pick.row + dy),
  });

  function setPick(column, row) {
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    pick = { column: within(column, picture.width), row: within(row, picture.height) };
    save(model, { pixel: [pick.column, pick.row] });
    draw();
    announce(lookSentence());
  }

  const pickAt = (x, y) => setPick(
    Math.floor((x + 1) / 2 * picture.width), Math.floor((y + 1) / 2 * picture.height));

  let pressed = false;
  result.canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pressed = true;
    result.canvas.setPointerCapture(event.pointerId);
    pickAt(...gather(...result.locate(event)));
  });
  result.canvas.addEventListener("pointermove", (event) => {
    if (pressed) pickAt(...gather(...result.locate(event)));
  });
  result.canvas.addEventListener("lostpointercapture", () => { pressed = false; });

  function lookSentence() {
    const { pixel: [x, y] } = looked();
    return `Output pixel ${pick.column}, ${pick.row} reads the input at ${number(x)}, ${number(y)}.`;
  }

  // --- The magnifying glass: the source point among its four neighbours ---

  const loupe = plane("The source point among its four neighbours, enlarged", paintLoupe, {
    x: 0, y: 0, reach: 2.1,
  });

  function paintLoupe(context, self) {
    const [px, py] = looked().pixel;
    const unit = self.scale;
    const corner = (column, row) => self.place(column - px - 0.5, row - py - 0.5);
    const first = [Math.floor(px - self.view.reach), Math.floor(py - self.view.reach)];
    const near = taps([px, py]);
    context.font = `600 ${Math.max(10, unit * 0.2)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    if (Math.abs(px) > 1e6 || Math.abs(py) > 1e6 || Number.isNaN(px + py)) return;
    for (let row = first[1]; row <= first[1] + 6; row++) {
      for (let column = first[0]; column <= first[0] + 6; column++) {
        const [left, top] = corner(column, row);
        context.fillStyle = isInside(column, row) ? css(read(picture, column, row)) : "#000";
        context.fillRect(left, top, unit + 0.5, unit + 0.5);
        if (!isInside(column, row)) {
          context.strokeStyle = "rgba(255, 255, 255, 0.25)";
          context.lineWidth = 1;
          context.beginPath();
          context.moveTo(left, top + unit);
          context.lineTo(left + unit, top);
          context.stroke();
        }
      }
    }
    context.strokeStyle = "rgba(128, 128, 128, 0.55)";
    context.lineWidth = 1;
    for (let k = 0; k <= 6; k++) {
      const [left, top] = corner(first[0] + k, first[1] + k);
      context.beginPath();
      context.moveTo(left, 0);
      context.lineTo(left, self.size);
      context.moveTo(0, top);
      context.lineTo(self.size, top);
      context.stroke();
    }
    // A pixel-sized square about the point: its share of each pixel is that pixel's weight.
    const [left, top] = self.place(-0.5, -0.5);
    context.fillStyle = "rgba(255, 255, 255, 0.22)";
    context.fillRect(left, top, unit, unit);
    for (const { column, row } of near) {
      const [x, y] = corner(column, row);
      stroke(context, colours, colours.input, 1.5, [
        [x + 1, y + 1], [x + unit - 1, y + 1], [x + unit - 1, y + unit - 1], [x + 1, y + unit - 1],
      ], true);
    }
    stroke(context, colours, colours.output, 2.5,
      [[left, top], [left + unit, top], [left + unit, top + unit], [left, top + unit]], true);
    for (const { column, row, weight } of near) {
      const [x, y] = corner(column, row).map((v) => v + unit / 2);
      const outward = [Math.sign(column - px || -1), Math.sign(row - py || -1)];
      label(context, weight.toFixed(2), x + outward[0] * unit * 0.2, y + outward[1] * unit * 0.3);
    }
    const [x, y] = self.place(0, 0);
    dot(context, x, y, 6, "#fff", colours.input);
  }

  const isInside = (column, row) =>
    column >= 0 && column < picture.width && row >= 0 && row < picture.height;

  const value = (values) => values.map((one) => number(one / 255)).join(" ");

  const equation = h("div", { class: "equation" });
  const rows = Array.from({ length: 5 }, () => h("tr"));
  const table = h("table", {},
    h("caption", { class: "unseen" }, "The four neighbours and their weights"),
    h("thead", {}, h("tr", {},
      ...["Pixel", "Weight", "Value"].map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...rows));

  function fillInspector() {
    if (!inspector.open) return;
    const { target: [x, y], source: [xs, ys], pixel: [px, py] } = looked();
    // A product stays on its line; the sum may break at a plus.
    const product = (entry, rest) => h("span", {}, h("b", {}, bracket(entry)), rest);
    const sum = ([a, b, t], result, letter) => h("div", {},
      h("i", {}, letter), h("sup", {}, "s"), " = ",
      product(a, ` · ${bracket(x)}`), " + ", product(b, ` · ${bracket(y)}`), " + ",
      product(t, ""), " = ", h("span", {}, number(result)));
    equation.replaceChildren(
      h("p", {}, `Output pixel (${pick.column}, ${pick.row}), at `, h("i", {}, "x"),
        h("sup", {}, "t"), ` = ${number(x)}, `, h("i", {}, "y"), h("sup", {}, "t"),
        ` = ${number(y)}, reads the input at`),
      sum(theta[0], xs, "x"), sum(theta[1], ys, "y"),
      h("p", {}, "in pixels: column ", h("b", {}, number(px)), ", row ", h("b", {}, number(py)),
        "."));
    const swatch = (values) => h("span", { class: "swatch", style: `background: ${css(values)}` });
    taps([px, py]).forEach(({ column, row, weight }, k) => {
      const values = read(picture, column, row);
      rows[k].replaceChildren(
        h("th", { scope: "row" }, `(${number(column, 0)}, ${number(row, 0)})`),
        h("td", {}, number(weight)),
        h("td", {}, swatch(values), isInside(column, row) ? value(values) : "outside: 0"));
    });
    const total = sampleAt(picture, [px, py]);
    rows[4].replaceChildren(h("th", { scope: "row" }, "Sum"), h("td", {}, "1.00"),
      h("td", {}, swatch(total), value(total)));
  }

  const bracket = (entry) => (entry < 0 && number(entry) !== "0.00"
    ? `(${number(entry)})` : number(entry));

  const inspector = h("details", { class: "inspector", open: show !== "grid", ontoggle: () => draw() },
    h("summary", {}, "The picked pixel: where it reads, and what it weighs"),
    h("div", { class: "columns" },
      ...(show === "weights"
        ? [loupe.element, h("div", {}, table, equation)]
        : [h("div", {}, equation, table), loupe.element])));

  // --- The matrix and what it says ---

  const entries = matrix(theta, {
    name: "θ",
    heads: ["xᵗ", "yᵗ", "1"],
    sides: ["xˢ", "yˢ"],
    onedit(next) {
      glideTheta.stop();
      edit(next);
    },
  });
  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });

  function areaWords(det) {
    if (!(Math.abs(det) > 1e-12)) return "no area is left";
    const factor = 1 / Math.abs(det);
    const mirrored = det < 0 ? ", mirrored" : "";
    if (number(factor) === "0.00") return `areas become less than 0.01 times as large${mirrored}`;
    return number(factor) === "1.00" ? `areas stay as they are${mirrored}`
      : `areas become ${number(factor)} times as large${mirrored}`;
  }

  const square = (one) => correctAspect(one, picture.width, picture.height);
  const same = (a, b) => a.every((row, r) => row.every((v, c) => Math.abs(v - b[r][c]) < 5e-4));
  const chips = Object.entries(PRESETS).map(([name, make]) =>
    h("button", { type: "button", class: "chip", onclick: () => goTo(make(square)) }, name));
  const glideTheta = glide((flat) => edit([flat.slice(0, 3), flat.slice(3)]));

  function goTo(next) {
    glideTheta(theta.flat(), next.flat(), () => entries.update(theta, true));
  }

  const first = {
    theta: theta.map((row) => [...row]), picture: model.get("_picture"), pixel: model.get("pixel"),
  };
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      save(model, { pixel: first.pixel });
      pick = null;
      setPicture(first.picture);
      save(model, { _picture: first.picture });
      goTo(first.theta);
    },
  }, "Reset");
  const choice = pictureChoice((name) => {
    const { width, height } = pictures[name];
    if (pick.column >= width || pick.row >= height) model.set("pixel", null);
    save(model, { _picture: name });
  });

  // --- All together ---

  function edit(next) {
    theta = next;
    save(model, { theta: next });
    entries.update(theta);
    announce(sentence());
    refit();
    draw();
  }

  const sentence = () => describe(theta, picture.width, picture.height);

  // The view of the input; never under the reader's hand.
  const fit = fitting(input, () => draw());
  function refit() {
    if (dragging) return;
    fit([[-1, -1], [1, -1], [1, 1], [-1, 1], [1, 0], [0, 1]]
      .map((point) => spread(transformPoint(theta, point))));
  }

  const draw = frames(paint);

  function paint() {
    warpInto(output.image.data, picture, theta);
    output.context.putImageData(output.image, 0, 0);
    input.draw();
    result.draw();
    if (inspector.open) loupe.draw();
    const said = (column) => `${number(theta[0][column])}, ${number(theta[1][column])}`;
    origin.put(...spread([theta[0][2], theta[1][2]]), said(2));
    xTip.put(...spread(transformPoint(theta, [1, 0])), said(0));
    yTip.put(...spread(transformPoint(theta, [0, 1])), said(1));
    const { target } = looked();
    pixel.put(...spread(target), `column ${pick.column}, row ${pick.row}`);
    // From the output's pixel to the place where it reads: the direction of θ.
    arrow.draw([result, spread(target)], [input, spread(looked().source)]);
    fillInspector();
    setText(words, sentence());
    const det = determinant(theta);
    setText(facts, `det = ${number(det)}: ${areaWords(det)}`);
    chips.forEach((chip, k) => setAttribute(
      chip, "aria-pressed", same(theta, Object.values(PRESETS)[k](square))));
    setAttribute(result.canvas, "aria-label", `Output. ${words.textContent}`);
  }

  const fromModel = () => {
    const next = model.get("theta");
    if (next.every((row, r) => row.every((v, c) => v === theta[r][c]))) return;
    glideTheta.stop();
    theta = next;
    entries.update(theta, true);
    refit();
    draw();
  };
  const onPicture = async () => {
    pictures = await loadPictures(model.get("_pictures"), pictures);
    // The kernel says the pictures and the choice in two messages, the pictures first.
    if (!pictures[model.get("_picture")]) return;
    setPicture(model.get("_picture"));
    choice.update(pictures, model.get("_picture"));
    refit();
    draw();
  };
  const onPixel = () => {
    takePixel();
    draw();
  };
  const unfollow = follow(model, {
    theta: fromModel, pixel: onPixel, _picture: onPicture, _pictures: onPicture,
  });
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [input, result, loupe]) self.onresize = draw;

  setPicture(model.get("_picture"));
  choice.update(pictures, model.get("_picture"));
  const controls = [
    entries.element,
    // Below the sliders: words that take another line must not move them under the reader's hand.
    h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" },
      h("div", { class: "chips", role: "group", "aria-label": "Presets" }, ...chips),
      choice.element, ownPicture(model, root, announce), reset),
  ];
  root.append(stage, ...(show === "grid" ? [...controls, inspector] : [inspector, ...controls]));
  colours = palette(root);
  refit();
  draw();
  return () => {
    unfollow();
    arrow.stop();
    glideTheta.stop();
    fit.stop();
    for (const self of [input, result, loupe]) self.stop();
  };
});
