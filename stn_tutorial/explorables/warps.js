// The mathematics of maps beyond affine, and of any grid: a homography, a mesh of triangles, a
// thin-plate spline. As in maths.js: double precision, θ maps output to input, −1 and 1 are edges.

import { centres, describe, fixed, ownPixels, readInto, sampleAt, sourcePixel } from "./maths.js";

// Points are [[x, y], …]; positions, of which there are many, a Float64Array x, y, x, y…; all are
// normalised. The package's grids are positions, row by row.
export const positions = (points) => Float64Array.from(points.flat());

// k×k points that span the picture, edges included, row by row.
export const controlPoints = (k) => Array.from({ length: k * k }, (_, index) =>
  [index % k, Math.floor(index / k)].map((step) => (2 * step - (k - 1)) / (k - 1)));

// The output's own pixel centres.
export function regularGrid({ width, height }) {
  const columns = [...centres(width)];
  return positions([...centres(height)].flatMap((y) => columns.map((x) => [x, y])));
}

// `warp` for any grid.
export function warpGrid(picture, grid, output = picture, mode = "bilinear") {
  const { width, height, channels } = picture;
  const result = new Float64Array(output.width * output.height * channels);
  for (let k = 0; k < output.width * output.height; k++) {
    const pixel = [sourcePixel(grid[2 * k], width), sourcePixel(grid[2 * k + 1], height)];
    result.set(sampleAt(picture, pixel, mode), k * channels);
  }
  return result;
}

// `warpInto` for any grid.
export function warpGridInto(rgba, picture, grid, output = picture) {
  const { width, height } = picture;
  const xs = centres(output.width);
  const ys = centres(output.height);
  const ownX = ownPixels(width, output.width);
  const ownY = ownPixels(height, output.height);
  for (let i = 0, k = 0; i < output.height; i++) {
    for (let j = 0; j < output.width; j++, k++) {
      const px = ownX[j] + ((grid[2 * k] - xs[j]) * width) / 2;
      const py = ownY[i] + ((grid[2 * k + 1] - ys[i]) * height) / 2;
      readInto(rgba, 4 * k, picture, px, py);
    }
  }
  return rgba;
}

// Twice a triangle's area, with its sign.
const cross = ([ax, ay], [bx, by], [cx, cy]) => (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);

// The denominator w that a homography has at each of the output's corners, but for a common factor:
// twice the area, with its sign, of the triangle of the three other source corners. Their
// alternating sum is 0, as that of an affine function over a square's corners must be.
export const cornerWeights = ([a, b, c, d]) =>
  [cross(b, d, c), cross(a, d, c), cross(a, b, d), cross(a, b, c)];

// θ (3×3) that takes the output's corners to these, upper left, upper right, lower left, lower
// right; its last entry 1 where it can be, otherwise its largest denominator at a corner. null when
// all four lie in line. Singular when three do.
export function homography(corners) {
  const weights = cornerWeights(corners);
  const peak = weights.reduce((most, one) => (Math.abs(one) > Math.abs(most) ? one : most));
  if (!(Math.abs(peak) > 1e-9)) return null;
  // Each row is an affine function, known at the square's corners.
  const row = ([a, b, c, d]) => [b + d - a - c, c + d - a - b, a + b + c + d].map((sum) => sum / 4);
  const last = row(weights)[2];
  const scale = Math.abs(last) > 1e-9 * Math.abs(peak) ? last : peak;
  return [0, 1, 2].map((axis) => row(weights.map((weight, k) => weight * (corners[k][axis] ?? 1)))
    .map((entry) => entry / scale + 0));
}

// As `projective_grid` does it: a smaller denominator counts as this.
const HORIZON = 1e-4;

export function projectiveGrid([[a, b, c], [d, e, f], [g, h, i]], own) {
  const grid = new Float64Array(own.length);
  for (let k = 0; k < own.length; k += 2) {
    const x = own[k];
    const y = own[k + 1];
    let w = g * x + h * y + i;
    if (Math.abs(w) < HORIZON) w = w < 0 ? -HORIZON : HORIZON;
    grid[k] = (a * x + b * y + c) / w;
    grid[k + 1] = (d * x + e * y + f) / w;
  }
  return grid;
}

const projectPoint = (theta, point) => [...projectiveGrid(theta, point)];

const denominator = ([, , [g, h, i]], [x, y]) => g * x + h * y + i;

// The part of the output beyond the horizon, where w < 0: the corners of a polygon.
export function beyondHorizon(theta) {
  const rim = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
  return rim.flatMap((a, k) => {
    const b = rim[(k + 1) % 4];
    const [wa, wb] = [denominator(theta, a), denominator(theta, b)];
    const part = wa / (wa - wb);
    const met = wa < 0 !== wb < 0 ? [a.map((v, axis) => v + part * (b[axis] - v))] : [];
    return wa < 0 ? [a, ...met] : met;
  });
}

// A polygon's share of the output.
export const areaShare = (polygon) => Math.abs(polygon.reduce((sum, [x, y], k) => {
  const [nextX, nextY] = polygon[(k + 1) % polygon.length];
  return sum + (x * nextY - y * nextX) / 8;
}, 0));

// A straight line of the output as the input sees it: one piece, or two where it meets the horizon
// and comes back from the other side of infinity.
export function projectLine(theta, a, b) {
  const [wa, wb] = [denominator(theta, a), denominator(theta, b)];
  const at = (part) => projectPoint(theta, a.map((v, axis) => v + part * (b[axis] - v)));
  if (wa < 0 === wb < 0) return [{ ends: [at(0), at(1)], beyond: wa < 0 }];
  const part = wa / (wa - wb);
  return [
    { ends: [at(0), at(part * 0.999)], beyond: wa < 0 },
    { ends: [at(1 - (1 - part) * 0.999), at(1)], beyond: wb < 0 },
  ];
}

// X of A X = B, by elimination with the largest pivot of each column.
export function solve(left, right) {
  const rows = left.map((row, r) => [...row, ...right[r]]);
  const count = left.length;
  for (let c = 0; c < count; c++) {
    let best = c;
    for (let r = c + 1; r < count; r++) {
      if (Math.abs(rows[r][c]) > Math.abs(rows[best][c])) best = r;
    }
    [rows[c], rows[best]] = [rows[best], rows[c]];
    const pivot = rows[c].map((value) => value / rows[c][c]);
    rows.forEach((row, r) => {
      const factor = row[c];
      if (r !== c && factor !== 0) rows[r] = row.map((value, k) => value - factor * pivot[k]);
    });
    rows[c] = pivot;
  }
  return rows.map((row) => row.slice(count));
}

// r² log r, of r².
const bend = (squares) => (squares > 0 ? 0.5 * squares * Math.log(squares) : 0);

// How much each position follows each of k×k control points: a row for each position. A spline's
// is linear in the points' movements (Bookstein, 1989): its system is solved once.
export function splineWeights(k, own) {
  const points = controlPoints(k);
  const bends = (x, y) => points.map(([px, py]) => bend((x - px) ** 2 + (y - py) ** 2));
  const flat = points.map(([x, y]) => [1, x, y]);
  const system = [
    ...points.map(([x, y], r) => [...bends(x, y), ...flat[r]]),
    ...[0, 1, 2].map((c) => [...flat.map((row) => row[c]), 0, 0, 0]),
  ];
  const unit = system.map((_, r) => points.map((_, c) => Number(r === c)));
  const inverse = solve(system, unit).map((row) => Float64Array.from(row));
  const count = k * k;
  const weights = new Float64Array((own.length / 2) * count);
  for (let n = 0; n < own.length / 2; n++) {
    const [x, y] = [own[2 * n], own[2 * n + 1]];
    [...bends(x, y), 1, x, y].forEach((value, r) => {
      const row = inverse[r];
      for (let c = 0; c < count; c++) weights[n * count + c] += value * row[c];
    });
  }
  return weights;
}

// A mesh's: a hat that is affine on each triangle of the cells, cut along their falling diagonals.
export function meshWeights(k, own) {
  const points = controlPoints(k);
  const cells = (k - 1) / 2;
  const weights = new Float64Array((own.length / 2) * k * k);
  for (let n = 0, place = 0; n < own.length; n += 2) {
    for (const [x, y] of points) {
      const dx = (own[n] - x) * cells;
      const dy = (own[n + 1] - y) * cells;
      const reach = Math.max(Math.abs(dx), Math.abs(dy), Math.abs(dx - dy));
      weights[place++] = Math.max(0, 1 - reach);
    }
  }
  return weights;
}

// Where each position reads when the control points read at θ: moved by the weighted sum of the
// points' movements. Zero movement is the identity, exactly.
export function movedGrid(weights, theta, own) {
  const homes = controlPoints(Math.sqrt(theta.length));
  const count = theta.length;
  // Points that have not moved are left out.
  const moved = Int32Array.from(homes.keys()).filter((c) =>
    theta[c][0] !== homes[c][0] || theta[c][1] !== homes[c][1]);
  const dx = Float64Array.from(moved, (c) => theta[c][0] - homes[c][0]);
  const dy = Float64Array.from(moved, (c) => theta[c][1] - homes[c][1]);
  const grid = new Float64Array(own.length);
  for (let n = 0, row = 0; n < own.length; n += 2, row += count) {
    let x = 0;
    let y = 0;
    for (let c = 0; c < moved.length; c++) {
      const weight = weights[row + moved[c]];
      x += weight * dx[c];
      y += weight * dy[c];
    }
    grid[n] = own[n] + x;
    grid[n + 1] = own[n + 1] + y;
  }
  return grid;
}

// The cells between so many points a side, as the indices of their corners: squares, or two
// triangles each, cut along the falling diagonal.
export function cellsOf(side, triangles) {
  const indices = Array.from({ length: (side - 1) ** 2 }, (_, k) =>
    Math.floor(k / (side - 1)) * side + (k % (side - 1)));
  return indices.flatMap((k) => {
    const square = [k, k + 1, k + side + 1, k + side];
    if (!triangles) return [square];
    return [[square[0], square[1], square[2]], [square[0], square[2], square[3]]];
  });
}

// Which cells are folded over: those whose area has not the sign that most have. `unit` is a cell's
// own area; less than a millionth of it counts as none.
export function findFolds(places, cells, unit) {
  let positive = 0;
  let negative = 0;
  const signs = cells.map(([a, b, c, d = a]) => {
    const area = ((places[2 * c] - places[2 * a]) * (places[2 * d + 1] - places[2 * b + 1])
      - (places[2 * c + 1] - places[2 * a + 1]) * (places[2 * d] - places[2 * b])) / 2;
    if (area > 1e-6 * unit) positive++;
    else if (area < -1e-6 * unit) negative++;
    else return 0;
    return Math.sign(area);
  });
  const mirrored = negative > positive;
  const folded = cells.filter((_, k) => signs[k] !== (mirrored ? -1 : 1));
  return { folded, mirrored, share: folded.length / cells.length };
}

// Cells side by side as one, so that there are fewer to draw: its upper nodes, and its lower ones
// backwards. A triangle stays alone.
export function joinCells(cells) {
  const strips = [];
  for (const [a, b, c, d] of cells) {
    const last = strips.at(-1);
    if (d === undefined) strips.push({ upper: [a, b], lower: [c] });
    else if (last?.upper.at(-1) === a && last.lower[0] === d) {
      last.upper.push(b);
      last.lower.unshift(c);
    } else strips.push({ upper: [a, b], lower: [c, d] });
  }
  return strips;
}

// "12 %"
function percent(share) {
  const text = (100 * share).toFixed(0);
  return text === "0" ? "less than 1 %" : `${text} %`;
}

const signed = (value) => (fixed(value) === "0" ? "0" : `${value < 0 ? "−" : ""}${fixed(value)}`);

// Two sentences on four corners: what the map is, and what is beyond its horizon.
// `CornersExplorer.describe` writes the same.
export function describeCorners(corners, width = 1, height = 1) {
  const flat = cornerWeights(corners).filter((weight) => Math.abs(weight) < 1e-9).length;
  if (flat) {
    const [lie, read] = [
      ["Three corners lie in line", "from one line of the input"],
      ["Two corners lie on one another", "one and the same point of the input"],
    ][flat - 1] ?? ["All four corners lie in line", "nothing: no projective map goes there"];
    return [`${lie}.`, `Every output pixel reads ${read}${flat < 3 ? ", and θ has no inverse" : ""}.`];
  }
  const theta = homography(corners);
  const ends = controlPoints(2).map((corner) => denominator(theta, corner));
  const affine = theta[2].slice(0, 2).every((entry) => fixed(entry) === "0");
  const words = affine ? describe(theta.slice(0, 2), width, height)
    : `The picture is seen in perspective: the denominator runs from ${
      signed(Math.min(...ends))} to ${signed(Math.max(...ends))}.`;
  const beyond = areaShare(beyondHorizon(theta));
  if (beyond > 0) {
    return [words, `${percent(beyond)} of the output is beyond the horizon: the denominator is negative `
      + "there, and the picture the other way round."];
  }
  return [words, affine ? "The corners form a parallelogram: this map is affine."
    : "The denominator is positive everywhere: the map is one to one."];
}

// Two sentences on control points: what is done to them, and what is folded.
// `SplineExplorer.describe` writes the same.
export function describePoints(theta, transform, { share, mirrored }) {
  const homes = controlPoints(Math.sqrt(theta.length));
  const ways = theta.map(([x, y], k) => Math.hypot(x - homes[k][0], y - homes[k][1]));
  const moved = ways.filter((way) => fixed(way) !== "0").length;
  const between = transform === "mesh" ? "each triangle between them has an affine map of its own"
    : "a thin-plate spline bends what is between them";
  const words = !moved ? "The picture stays as it is."
    : `${moved} of ${theta.length} points ${moved === 1 ? "is" : "are"} moved, by up to ${
      fixed(Math.max(...ways))}: ${between}.`;
  if (share) {
    return [words, `${percent(share)} of the output is folded over: the determinant changes sign `
      + "there, and the map is not one to one."];
  }
  return [words, mirrored
    ? "Nothing is folded: the determinant is negative everywhere, and the picture is mirrored."
    : "Nothing is folded: the determinant is positive everywhere."];
}
