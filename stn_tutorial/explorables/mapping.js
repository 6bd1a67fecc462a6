// The mapping explorable: the same change made forwards, with its holes and collisions, and backwards.

import { compose, correctAspect, decompose, describe, identity, rotation } from "./maths.js";
import { scaling, shear, splat, translation, warp } from "./maths.js";
import { field, matrix } from "./fields.js";
import { dot, drawPicture, explorable, follow, frame, frames, glide, h } from "./ui.js";
import { loadPictures, options, palette, pictureChoice, plane, save } from "./ui.js";
import { ownPicture } from "./own.js";

const CHANGES = {
  Identity: () => identity(),
  "Turn by 30°": (square) => square(rotation(30)),
  "Twice as large": () => scaling(2),
  "Half as large": () => scaling(0.5),
  Shear: (square) => square(shear(0.5)),
};

explorable("mapping", ({ model, root, pictures, announce, onTheme }) => {
  const first = { theta: model.get("theta"), mode: model.get("mode"), _picture: model.get("_picture") };
  let { theta, mode } = first;
  let picture = pictures[first._picture];
  let colours = palette(root);
  let forward;
  const half = () => {
    const longer = Math.max(picture.width, picture.height);
    return [picture.width / longer, picture.height / longer];
  };
  const square = (one) => correctAspect(one, picture.width, picture.height);

  // --- The three pictures ---

  const view = () => ({ x: 0, y: 0, reach: 1.04 });
  const input = plane("Input", (context, self) =>
    frame(context, colours.input, drawPicture(context, self, picture.canvas, ...half())), view());
  const scattered = plane("Forward mapping", paintForward, view());
  const gathered = plane("Inverse mapping", (context, self) =>
    frame(context, colours.output, drawPicture(context, self, shown(inverse()), ...half())), view());
  const panel = (kind, name, said, self) => h("figure", { class: kind },
    h("figcaption", {}, h("b", {}, name), h("span", {}, said)), self.element);
  const stage = h("div", { class: "trio" },
    panel("input", "Input", "", input),
    panel("output", "Forward", " input pixels are sent", scattered),
    panel("output", "Inverse", " output pixels are read", gathered));

  const inverse = () => warp(picture, theta, picture, mode);

  // Numbers up to 255 as a picture to draw.
  function shown(data) {
    const { width, height, channels } = picture;
    const canvas = h("canvas", { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let k = 0; k < width * height; k++) {
      for (let c = 0; c < 3; c++) {
        image.data[4 * k + c] = data[k * channels + (channels === 3 ? c : 0)];
      }
      image.data[4 * k + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function paintForward(context, self) {
    if (!forward) return;
    const [left, top, width, height] = drawPicture(context, self, shown(forward.data), ...half());
    const [wide, high] = [width / picture.width, height / picture.height];
    forward.hits.forEach((hits, k) => {
      const [x, y] = [left + (k % picture.width) * wide, top + Math.floor(k / picture.width) * high];
      if (forward.holes[k]) {
        context.fillStyle = colours.error;
        context.fillRect(x, y, wide + 0.3, high + 0.3);
      }
      if (hits > 1) {
        dot(context, x + wide / 2, y + high / 2, Math.max(wide * 0.3, 1.5), "#fff");
        dot(context, x + wide / 2, y + high / 2, Math.max(wide * 0.16, 0.8), "#000");
      }
    });
    frame(context, colours.output, [left, top, width, height]);
  }

  // --- What it says ---

  const words = h("p", { class: "words" });
  const facts = h("p", { class: "facts" });
  const key = h("p", { class: "facts key", "aria-hidden": "true" },
    h("i", { class: "swatch hole" }), "hole: nothing landed ",
    h("i", { class: "swatch clash" }), "collision: several landed");
  const plural = (count, one) => `${count || "no"} ${one}${count === 1 ? "" : "s"}`;

  function sentence() {
    if (!forward) return "Forward mapping has no answer: θ has no inverse. Inverse mapping still reads.";
    const holes = forward.holes.filter(Boolean).length;
    const collisions = forward.hits.filter((hits) => hits > 1).length;
    return `Forward: ${plural(holes, "hole")} and ${plural(collisions, "collision")} among ${
      forward.hits.length} pixels. Inverse: every pixel has a value.`;
  }

  // --- Controls ---

  const tell = () => announce(`${words.textContent} ${facts.textContent}`);
  const glideTheta = glide((flat) => edit([flat.slice(0, 3), flat.slice(3)]));

  function edit(next) {
    save(model, { theta: next });
  }

  // Turn and size anew, at the place where the picture is.
  function pose(degrees, size) {
    glideTheta.stop();
    const parts = decompose(theta);
    const place = parts ? translation(parts.tx, parts.ty) : identity();
    edit(compose(compose(square(rotation(degrees)), scaling(size)), place));
  }

  const now = () => {
    const parts = decompose(square2(theta)) ?? { degrees: 0, sx: 1 };
    return [parts.degrees, Math.min(Math.max(parts.sx, 0.2), 4)];
  };
  // Back from the picture's proportions to a square's, in which a turn is a turn.
  const square2 = (one) => correctAspect(one, picture.height, picture.width);

  const turn = field({
    name: "turn", label: "Turn in degrees, counter-clockwise", low: -180, high: 180, step: 1, jump: 5,
    onedit: (degrees) => pose(degrees, now()[1]),
  });
  const size = field({
    name: "size", label: "Size", low: 0.2, high: 4, step: 0.01, jump: 0.1,
    onedit: (value) => pose(now()[0], value),
  });
  const entries = matrix(theta, {
    name: "θ", heads: ["xᵗ", "yᵗ", "1"], sides: ["xˢ", "yˢ"],
    onedit(next) {
      glideTheta.stop();
      edit(next);
    },
  });
  const chips = Object.entries(CHANGES).map(([name, make]) => h("button", {
    type: "button", class: "chip",
    onclick: () => glideTheta(theta.flat(), make(square).flat(), () => entries.update(theta, true)),
  }, name));
  const modes = options("Inverse reads", { nearest: "Nearest", bilinear: "Bilinear" },
    (chosen) => save(model, { mode: chosen }));
  const choice = pictureChoice((name) => save(model, { _picture: name }));
  const reset = h("button", {
    type: "button", class: "chip quiet",
    onclick() {
      glideTheta.stop();
      save(model, first);
      entries.update(theta, true);
    },
  }, "Reset");

  // --- All together ---

  const same = (a, b) => a.flat().every((v, k) => Math.abs(v - b.flat()[k]) < 5e-4);

  const draw = frames(() => {
    forward = splat(picture, theta);
    for (const self of [input, scattered, gathered]) self.draw();
    const [degrees, scale] = now();
    turn.update(Math.round(degrees * 1e6) / 1e6);
    size.update(scale);
    entries.update(theta);
    modes.update(mode);
    choice.update(pictures, model.get("_picture"));
    chips.forEach((chip, k) => chip.setAttribute("aria-pressed",
      String(same(theta, Object.values(CHANGES)[k](square)))));
    words.textContent = sentence();
    facts.textContent = describe(theta, picture.width, picture.height);
    scattered.canvas.setAttribute("aria-label", `Forward mapping. ${sentence()}`);
    gathered.canvas.setAttribute("aria-label", `Inverse mapping. ${facts.textContent}`);
  });
  const change = async () => {
    theta = model.get("theta");
    mode = model.get("mode");
    draw();
    if (!pictures[model.get("_picture")] || model.get("_pictures") !== known) {
      known = model.get("_pictures");
      pictures = await loadPictures(known, pictures);
    }
    picture = pictures[model.get("_picture")] ?? picture;
    draw();
    requestAnimationFrame(tell);
  };
  let known = model.get("_pictures");
  const unfollow = follow(model, {
    theta: change, mode: change, _picture: change, _pictures: change,
  });
  onTheme(() => {
    colours = palette(root);
    draw();
  });
  for (const self of [input, scattered, gathered]) self.onresize = draw;
  root.append(stage, key, h("div", { class: "told" }, words, facts),
    h("div", { class: "bar" }, h("div", { class: "fields" }, turn.element, size.element),
      h("div", { class: "chips", role: "group", "aria-label": "Changes" }, ...chips),
      modes.element, choice.element, ownPicture(model, root, announce), reset),
    h("details", { class: "inspector" }, h("summary", {}, "The six numbers θ"), entries.element));
  colours = palette(root);
  draw();
  return () => {
    unfollow();
    glideTheta.stop();
    for (const self of [input, scattered, gathered]) self.stop();
  };
});
