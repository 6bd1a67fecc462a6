// The spline explorable: k×k control points, and a thin-plate spline or a mesh of triangles through
// them.

import { cellsOf, controlPoints, describePoints, findFolds, meshWeights, movedGrid } from "./maths.js";
import { positions, splineWeights } from "./maths.js";
import { dragging, drawLines } from "./dragging.js";
import { explorable, options, save } from "./ui.js";

// From where a point stands to where it reads.
const BENDS = {
  Identity: ([x, y]) => [x, y],
  Bulge: ([x, y]) => [x, y].map((v) => v * Math.min(1, 0.4 + 0.6 * (x * x + y * y))),
  Twist([x, y]) {
    const angle = Math.max(0, 1 - Math.hypot(x, y)) * (Math.PI / 2);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return [cos * x - sin * y, sin * x + cos * y];
  },
  Wave: ([x, y]) => [x + 0.2 * Math.sin(Math.PI * y), y],
  Fold: ([x, y]) => [Math.abs(y) < 0.9 && x > -0.9 && x < 0.1 ? x + 1.1 : x, y],
};

// So many nodes a side has the lattice that shows the grid: up to seven points lie on it.
const NODES = 61;

explorable("spline", (view) => {
  const { model } = view;
  const nodes = positions(controlPoints(NODES));
  const squares = cellsOf(NODES, false);
  let kept = {};

  // What does not change while a point is dragged.
  function prepare(k, own, transform) {
    if (kept.k === k && kept.own === own && kept.transform === transform) return;
    const weights = transform === "mesh" ? meshWeights : splineWeights;
    kept = { k, own, transform, pixels: weights(k, own), nodes: weights(k, nodes) };
    const cell = (NODES - 1) / (k - 1);
    const step = [10, 9, 8, 7, 6, 5].find((one) => cell % one === 0);
    const index = (column, row) => row * NODES + column;
    const all = Array.from({ length: NODES }, (_, one) => one);
    const inner = all.filter((one) => one % step === 0 && one % (NODES - 1));
    kept.lines = inner.flatMap((one) => [
      all.map((other) => index(one, other)), all.map((other) => index(other, one)),
    ]);
    kept.rim = [0, NODES - 1].flatMap((one) => [
      all.map((other) => index(one, other)), all.map((other) => index(other, one)),
    ]);
    kept.triangles = cellsOf(k, true);
  }

  function map(points, own) {
    const k = Math.sqrt(points.length);
    const transform = model.get("transform");
    prepare(k, own, transform);
    const mesh = transform === "mesh";
    const places = movedGrid(kept.nodes, points, nodes);
    // Triangles exactly; a spline by the squares of a lattice.
    const [spots, homes, cells, unit] = mesh
      ? [positions(points), positions(controlPoints(k)), kept.triangles, 2 / (k - 1) ** 2]
      : [places, nodes, squares, (2 / (NODES - 1)) ** 2];
    const folds = findFolds(spots, cells, unit);
    const [words, aside] = describePoints(points, transform, folds);
    const outline = (context, at, from) => {
      for (const cell of folds.folded) {
        cell.forEach((node, corner) => {
          const place = at([from[2 * node], from[2 * node + 1]]);
          context[corner ? "lineTo" : "moveTo"](...place);
        });
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
          at([places[2 * node], places[2 * node + 1]])));
        if (mesh) {
          const sides = kept.triangles.filter((_, n) => n % 2).map(([a, b]) => [at(points[a]), at(points[b])]);
          drawLines(context, colours, colours.grid, 0.75, sides);
        }
        drawLines(context, colours, colours.grid, 1.5, drawn(kept.lines));
        // The grid's rim is the output's frame, as the input sees it.
        drawLines(context, colours, colours.output, 2.25, drawn(kept.rim));
        if (!folds.folded.length) return;
        context.beginPath();
        outline(context, at, spots);
        context.globalAlpha = 0.6;
        context.fillStyle = colours.error;
        context.fill();
        context.globalAlpha = 1;
      },
      trace: (context, at) => outline(context, at, homes),
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
