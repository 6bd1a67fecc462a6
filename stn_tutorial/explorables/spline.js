// The spline explorable: k×k control points, and a thin-plate spline or a mesh of triangles through
// them.

import { cellsOf, controlPoints, describePoints, findFolds, joinCells } from "./warps.js";
import { meshWeights, movedGrid, positions, splineWeights } from "./warps.js";
import { dragging, drawLines } from "./dragging.js";
import { explorable, options, save } from "./ui.js";

// From where a point stands to where it reads.
const BENDS = {
  Identity: ([x, y]) => [x, y],
  Bulge: ([x, y]) => [x, y].map((v) => v * (0.5 + 0.25 * (x * x + y * y))),
  Twist([x, y]) {
    const angle = (1 - Math.hypot(x, y) / Math.SQRT2) * (Math.PI / 2);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return [cos * x - sin * y, sin * x + cos * y];
  },
  Wave: ([x, y]) => [x + 0.2 * Math.cos(Math.PI * y), y],
  Fold: ([x, y]) => [Math.abs(y) < 0.9 && x > -0.9 && x < 0.1 ? x + 1.1 : x, y],
};

// So many nodes a side has the lattice on which a spline is drawn, and its folds are counted.
const NODES = 49;

explorable("spline", (view) => {
  const { model } = view;
  const nodes = positions(controlPoints(NODES));
  const squares = cellsOf(NODES, false);
  let kept = {};

  // What does not change while a point is dragged.
  function prepare(k, own, transform) {
    if (kept.k === k && kept.own === own && kept.transform === transform) return;
    const weights = transform === "mesh" ? meshWeights : splineWeights;
    kept = { k, own, transform, pixels: weights(k, own) };
    if (transform !== "mesh") kept.nodes = weights(k, nodes);
    // Rows and columns of a lattice, as the indices of its nodes; a mesh shows its own sides.
    const [side, step] = transform === "mesh" ? [k, 1] : [NODES, k === 5 ? 6 : 8];
    const all = Array.from({ length: side }, (_, one) => one);
    // Every second node is enough for a line that looks round.
    const few = transform === "mesh" ? all : all.filter((one) => one % 2 === 0);
    const through = (one) => [few.map((other) => other * side + one), few.map((other) => one * side + other)];
    kept.lines = all.filter((one) => one % step === 0 && one % (side - 1)).flatMap(through);
    kept.rim = [0, side - 1].flatMap(through);
    kept.triangles = cellsOf(k, true);
    kept.diagonals = transform === "mesh" ? cellsOf(k, false).map(([a, , c]) => [a, c]) : [];
  }

  function map(points, own) {
    const k = Math.sqrt(points.length);
    const transform = model.get("transform");
    prepare(k, own, transform);
    const mesh = transform === "mesh";
    // Triangles exactly; a spline by the squares of a lattice.
    const [spots, homes, cells, unit] = mesh
      ? [positions(points), positions(controlPoints(k)), kept.triangles, 2 / (k - 1) ** 2]
      : [movedGrid(kept.nodes, points, nodes), nodes, squares, (2 / (NODES - 1)) ** 2];
    const folds = findFolds(spots, cells, unit);
    const [words, aside] = describePoints(points, transform, folds);
    const strips = joinCells(folds.folded);
    const outline = (context, at, lines) => {
      for (const line of lines) {
        line.forEach((place, corner) => context[corner ? "lineTo" : "moveTo"](...at(place)));
        context.closePath();
      }
    };
    return {
      words,
      aside,
      wrong: folds.folded.length > 0,
      grid: movedGrid(kept.pixels, points, own),
      paint(context, self, at, colours) {
        const drawn = (lines) => lines.map((line) => line.map((node) =>
          at([spots[2 * node], spots[2 * node + 1]])));
        drawLines(context, colours, colours.grid, 0.75, drawn(kept.diagonals));
        drawLines(context, colours, colours.grid, 1.5, drawn(kept.lines));
        // The grid's rim is the output's frame, as the input sees it.
        drawLines(context, colours, colours.output, 2.25, drawn(kept.rim));
        if (!folds.folded.length) return;
        context.beginPath();
        const seen = (node) => [spots[2 * node], spots[2 * node + 1]];
        outline(context, at, strips.map(({ upper, lower }) => [...upper, ...lower].map(seen)));
        context.globalAlpha = 0.6;
        context.fillStyle = colours.error;
        context.fill();
        context.globalAlpha = 1;
      },
      // In the output each is a rectangle, or a triangle.
      trace: (context, at) => outline(context, at, strips.map(({ upper, lower }) =>
        [upper[0], upper.at(-1), lower[0], lower.at(-1)].map((n) => [homes[2 * n], homes[2 * n + 1]]))),
    };
  }

  // The same map through another number of points.
  function resample(k) {
    const now = model.get("theta");
    const weights = model.get("transform") === "mesh" ? meshWeights : splineWeights;
    const own = positions(controlPoints(k));
    const moved = movedGrid(weights(Math.sqrt(now.length), own), now, own);
    // To a hundredth, but for what stays in its place.
    return controlPoints(k).map((home, n) => home.map((v, axis) => {
      const place = moved[2 * n + axis];
      return Math.abs(place - v) < 0.005 ? v : Math.round(place * 100) / 100 + 0;
    }));
  }

  const between = options("Between the points", { spline: "Thin-plate spline", mesh: "Mesh" },
    (transform) => save(model, { transform }));
  const counts = options("Points", { 3: "3×3", 4: "4×4", 5: "5×5" },
    (k) => save(model, { theta: resample(Number(k)) }));

  return dragging(view, {
    key: "theta",
    traits: ["transform"],
    presets: BENDS,
    numbered: false,
    chosen: 5,
    names: (index, k) => `Point ${index + 1} of ${k * k}, row ${Math.floor(index / k) + 1}, column ${
      (index % k) + 1}`,
    map,
    parts: () => [],
    choices: [between.element, counts.element],
    update(points) {
      between.update(model.get("transform"));
      counts.update(Math.sqrt(points.length));
    },
  });
});
