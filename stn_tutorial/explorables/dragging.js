// What the explorables with points to drag share: the input with the grid and its points, the output
// with the part marked where the map is not one to one, the fields of the chosen point.

import { controlPoints, regularGrid, warpGridInto } from "./warps.js";
import { field } from "./fields.js";
import { dot, drawPicture, fitting, follow, frame, frames, glide, h } from "./ui.js";
import { handle, link, loadPictures, number, palette, pictureChoice } from "./ui.js";
import { plane, save, setAttribute, setText } from "./ui.js";
import { ownPicture } from "./own.js";

// A pattern of slanted strokes; a tile, since a path of strokes takes long to paint.
function hatching(context, colour) {
  const side = 8;
  const ratio = devicePixelRatio || 1;
  const tile = h("canvas", { width: side * ratio, height: side * ratio });
  const drawn = tile.getContext("2d");
  drawn.scale(tile.width / side, tile.height / side);
  for (const [width, style] of [[3.2, "rgba(255, 255, 255, 0.7)"], [1.8, colour]]) {
    drawn.lineWidth = width;
    drawn.strokeStyle = style;
    drawn.beginPath();
    for (const k of [-side, 0, side]) {
      drawn.moveTo(k - side, 2 * side);
      drawn.lineTo(k + 2 * side, -side);
    }
    drawn.stroke();
  }
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(side / tile.width, side / tile.height));
  return pattern;
}

// `kit` is one explorable's own: `key`, the trait that holds its points; `traits`, the others that
// it has; `presets`, from where a point stands to where it reads; `names`, of a point;
// `numbered`, whether they show their numbers; `chosen`, which is at first; `map(points, own, picture)`, what is to be
// seen: {grid, words, aside, wrong, paint(context, self, at, colours), trace(context, at)};
// `parts(edit)`, its own elements, and `update(points)`, which fills them.
export function dragging({ model, root, pictures, announce, onTheme }, kit) {
  const names = [kit.key, ...kit.traits, "_picture"];
  const first = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  let points = first[kit.key];
  let picture = pictures[first._picture];
  let known = model.get("_pictures");
  let colours = palette(root);
  let { chosen } = kit;
  let held = false;
  let output;
  let own;
  let map;
  let homes;
  let grips = [];

  const half = () => {
    const longer = Math.max(picture.width, picture.height);
    return [picture.width / longer, picture.height / longer];
  };
  // Between normalised coordinates and the planes', in which a pixel is square.
  const spread = ([x, y]) => [x * half()[0], y * half()[1]];
  const gather = (x, y) => [x / half()[0], y / half()[1]];
  const side = () => Math.round(Math.sqrt(points.length));

  function prepare() {
    if (output?.picture !== picture) {
      const { width, height } = picture;
      const canvas = h("canvas", { width, height });
      const context = canvas.getContext("2d");
      output = { picture, canvas, context, image: context.createImageData(width, height) };
      own = regularGrid(picture);
    }
    if (homes?.length !== points.length) {
      homes = controlPoints(side());
      chosen = Math.min(chosen, homes.length - 1);
      for (const grip of grips) grip.remove();
      grips = homes.map((_, index) => grab(index));
      which.bounds(1, homes.length);
      choose(chosen);
    }
  }

  // --- The two pictures ---

  const input = plane("Input with the sampling grid", paintInput, { x: 0, y: 0, reach: 1.3 });
  const result = plane("Output", paintOutput, { x: 0, y: 0, reach: 1.12 });
  const arrow = link();
  // Elements, since text takes long to paint.
  const marks = kit.numbered ? points.map((_, k) =>
    h("span", { class: "mark", "aria-hidden": "true" }, k + 1)) : [];
  result.element.append(...marks);
  const panel = (kind, name, said, self) => h("figure", { class: kind },
    h("figcaption", {}, h("b", {}, name), h("span", {}, said)), self.element);
  const stage = h("div", { class: "stage points" },
    panel("input", "Input", " drag the points", input),
    panel("output", "Output", " what the grid reads", result), arrow.element);

  const within = (self) => ([x, y]) => self.place(...spread([x, y]));

  function paintInput(context, self) {
    if (!map) return;
    frame(context, colours.input, drawPicture(context, self, picture.canvas, ...half()));
    map.paint(context, self, within(self), colours);
  }

  let hatched = {};
  function paintOutput(context, self) {
    if (!map) return;
    const at = within(self);
    const box = drawPicture(context, self, output.canvas, ...half());
    if (map.wrong) {
      const key = `${colours.error} ${devicePixelRatio}`;
      if (hatched.key !== key) hatched = { key, pattern: hatching(context, colours.error) };
      context.fillStyle = hatched.pattern;
      context.beginPath();
      map.trace(context, at);
      context.fill();
    }
    frame(context, colours.output, box);
    homes.forEach((home, k) => {
      if (!kit.numbered) dot(context, ...at(home), 4.5, "#fff", colours.theta);
      else {
        const [x, y] = at(home).map((v, axis) => v - 13 * home[axis]);
        marks[k].style.transform = `translate(${x}px, ${y}px)`;
      }
    });
  }

  // The points in the output choose, too.
  result.canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    choose(nearest(homes.map(spread), result.locate(event)));
    draw();
  });

  const nearest = (places, [x, y]) => {
    const ways = places.map(([px, py]) => Math.hypot(px - x, py - y));
    return ways.indexOf(Math.min(...ways));
  };

  // --- The points ---

  function grab(index) {
    const grip = handle(input, {
      name: kit.names(index, side()),
      help: "Arrow keys move it, with Shift in larger steps; Page Up, Page Down or its number choose "
        + "another",
      kind: kit.numbered ? "corner" : "knot",
      start() {
        held = true;
        choose(index);
        grip.focus({ preventScroll: true });
      },
      end() {
        held = false;
        refit();
      },
      moved: (x, y) => put(index, ...gather(x, y)),
      nudged: (dx, dy) => put(index, points[index][0] + dx * 0.02, points[index][1] + dy * 0.02),
    });
    if (kit.numbered) grip.dataset.mark = index + 1;
    grip.addEventListener("focus", () => {
      choose(index);
      draw();
    });
    grip.addEventListener("keydown", numbers);
    return grip;
  }

  // Of points that lie close together, the nearest is meant, and not the last one drawn.
  input.element.addEventListener("pointerdown", (event) => {
    const meant = grips[nearest(points.map(spread), input.locate(event))];
    if (!event.isTrusted || event.target === meant || !grips.includes(event.target)) return;
    event.stopPropagation();
    event.preventDefault();
    meant.dispatchEvent(new PointerEvent("pointerdown", event));
  }, true);

  function choose(index) {
    chosen = index;
    // One stop for the Tab key, unless there are few.
    grips.forEach((grip, k) => {
      grip.tabIndex = kit.numbered || k === index ? 0 : -1;
      grip.toggleAttribute("data-chosen", k === index);
    });
  }

  let typed = { text: "", time: 0 };
  function numbers(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { PageUp: -1, PageDown: 1 }[event.key];
    if (/^\d$/.test(event.key)) {
      const text = (event.timeStamp - typed.time < 1000 ? typed.text : "") + event.key;
      typed = { text, time: event.timeStamp };
      grips[Number(text) - 1]?.focus();
    } else if (step) {
      event.preventDefault();
      grips[(chosen + step + grips.length) % grips.length].focus();
    }
  }

  // To a hundredth: a number that a reader can write down.
  const round = (value, bound) => Math.round(Math.min(Math.max(value, -bound), bound) * 100) / 100 + 0;

  function put(index, x, y, bound = 2) {
    glidePoints.stop();
    // An axis along which it does not move keeps all its digits.
    const next = [x, y].map((v, axis) => (v === points[index][axis] ? v : round(v, bound)));
    edit(points.map((point, k) => (k === index ? next : point)));
  }

  const edit = (next) => save(model, { [kit.key]: next });
  const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, k) => [flat[2 * k], flat[2 * k + 1]]);
  const glidePoints = glide((flat) => edit(pairs(flat)));
  const goTo = (next) => glidePoints(points.flat(), next.flat(), () => {
    for (const one of [alongX, alongY]) one.update(0, true);
    draw();
  });

  const fit = fitting(input, () => draw());
  function refit() {
    if (!held) fit(points.map(spread));
  }

  // --- Controls ---

  const which = field({
    name: kit.numbered ? "corner" : "point", label: kit.numbered ? "Corner" : "Point",
    low: 1, high: points.length, step: 1, jump: 1,
    onedit(value) {
      choose(Math.min(Math.max(Math.round(value), 1), points.length) - 1);
      draw();
      const place = points[chosen].map((v) => number(v)).join(", ");
      announce(`${kit.names(chosen, side())} reads the input at ${place}.`);
    },
  });
  which.element.classList.add("which");
  const along = (name, axis) => field({
    name, label: `${name} of the chosen ${kit.numbered ? "corner" : "point"}`,
    low: -2, high: 2, step: 0.01, jump: 0.05, bound: 10,
    onedit(value) {
      const point = points[chosen].map((v, k) => (k === axis ? value : v));
      put(chosen, ...point, 10);
      refit();
    },
  });
  const [alongX, alongY] = [along("x", 0), along("y", 1)];
  const preset = ([name]) => controlPoints(side()).map((home) => kit.presets[name](home).map((v) => v + 0));
  const entries = Object.entries(kit.presets);
  const chips = entries.map((entry) => h("button", {
    type: "button", class: "chip", onclick: () => goTo(preset(entry)),
  }, entry[0]));
  const choice = pictureChoice((name) => save(model, { _picture: name }));
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      glidePoints.stop();
      const { [kit.key]: start, ...others } = first;
      save(model, others);
      choose(Math.min(kit.chosen, grips.length - 1));
      if (start.length === points.length) goTo(start);
      else edit(start);
      draw();
    },
  }, "Reset");
  const words = h("p", { class: "words" });
  const aside = h("p", { class: "facts" });

  // --- All together ---

  const same = (a, b) => a.length === b.length
    && a.every((point, k) => point.every((v, axis) => Math.abs(v - b[k][axis]) < 5e-4));

  const draw = frames(() => {
    prepare();
    map = kit.map(points, own, picture);
    warpGridInto(output.image.data, picture, map.grid);
    output.context.putImageData(output.image, 0, 0);
    input.draw();
    result.draw();
    const home = homes[chosen];
    const [x, y] = points[chosen];
    grips.forEach((grip, k) => grip.put(...spread(points[k]), points[k].map((v) => number(v)).join(", ")));
    arrow.draw([result, spread(home)], [input, spread([x, y])]);
    which.update(chosen + 1);
    alongX.update(x);
    alongY.update(y);
    setText(words, map.words);
    setText(aside, map.aside);
    aside.classList.toggle("wrong", map.wrong);
    chips.forEach((chip, k) => setAttribute(chip, "aria-pressed", same(points, preset(entries[k]))));
    choice.update(pictures, model.get("_picture"));
    kit.update(points, map);
    setAttribute(result.canvas, "aria-label", `Output. ${map.words} ${map.aside}`);
  });
  const change = async () => {
    points = model.get(kit.key);
    draw();
    requestAnimationFrame(() => announce(`${map.words} ${map.aside}`));
    if (model.get("_pictures") !== known) {
      known = model.get("_pictures");
      pictures = await loadPictures(known, pictures);
    }
    picture = pictures[model.get("_picture")] ?? picture;
    refit();
    draw();
  };
  const unfollow = follow(model, Object.fromEntries([...names, "_pictures"].map((name) => [name, change])));
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [input, result]) self.onresize = draw;
  root.append(stage,
    h("div", { class: "fields three" }, which.element, alongX.element, alongY.element),
    ...kit.parts(edit),
    // Below the sliders: words that take another line must not move them under the reader's hand.
    h("div", { class: "told" }, words, aside),
    h("div", { class: "bar" },
      h("div", { class: "chips", role: "group", "aria-label": "Presets" }, ...chips),
      ...kit.choices, choice.element, ownPicture(model, root, announce), reset));
  colours = palette(root);
  refit();
  draw();
  return () => {
    unfollow();
    arrow.stop();
    glidePoints.stop();
    fit.stop();
    for (const self of [input, result]) self.stop();
  };
}

// As `stroke`, many lines at once, and without round joints: lines of many pieces are drawn anew in
// every frame.
export function drawLines(context, { halo }, colour, width, lines) {
  context.beginPath();
  for (const line of lines) {
    line.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  }
  context.lineJoin = "bevel";
  context.lineCap = "butt";
  for (const [style, wide] of [[halo, width + 1.75], [colour, width]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.stroke();
  }
}
