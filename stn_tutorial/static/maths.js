// The mathematics of the explorables, in double precision: the formulas of `stn_tutorial.affine`,
// `.grids` and `.sampling`, under the same names and conventions. θ is [[a, b, tx], [c, d, ty]] and
// maps output to input; −1 and 1 are a picture's outer edges, y points down. A picture is
// {width, height, channels, data}, its data in rows, channels last. tests/test_explorable_maths.py
// holds all of it to PyTorch.

// --- θ ---

export const identity = () => [[1, 0, 0], [0, 1, 0]];

// Each constructor is named after what the picture does.
export const translation = (tx, ty) => [[1, 0, -tx], [0, 1, -ty]];

export const scaling = (sx, sy = sx) => [[1 / sx, 0, 0], [0, 1 / sy, 0]];

export function rotation(degrees) {
  const [cos, sin] = cosSin(degrees);
  return [[cos, -sin, 0], [sin, cos, 0]];
}

export function shear(kx, ky = 0) {
  const det = 1 - kx * ky;
  return [[1 / det, -kx / det, 0], [-ky / det, 1 / det, 0]];
}

export function reflection(degrees) {
  const [cos, sin] = cosSin(2 * degrees);
  return [[cos, -sin, 0], [-sin, -cos, 0]];
}

export const crop = ([left, top, right, bottom]) => [
  [(right - left) / 2, 0, (left + right) / 2],
  [0, (bottom - top) / 2, (top + bottom) / 2],
];

// Exact at multiples of 90°, so that a quarter turn hits pixel centres.
function cosSin(degrees) {
  const radians = (degrees * Math.PI) / 180;
  const pair = [Math.cos(radians), Math.sin(radians)];
  return degrees % 90 === 0 ? pair.map(Math.round) : pair;
}

// First a and then b is done to the picture: θ_a θ_b.
export function compose(a, b) {
  return a.map(([p, q, t]) => [
    p * b[0][0] + q * b[1][0],
    p * b[0][1] + q * b[1][1],
    p * b[0][2] + q * b[1][2] + t,
  ]);
}

export const determinant = ([[a, b], [c, d]]) => a * d - b * c;

// Below the rounding error of its own two products, a determinant cannot be told from zero.
export function isSingular(theta) {
  const [[a, b], [c, d]] = theta;
  return !(Math.abs(determinant(theta)) > 2 ** -52 * (Math.abs(a * d) + Math.abs(b * c)));
}

// null for a singular θ.
export function invert(theta) {
  if (isSingular(theta)) return null;
  const det = determinant(theta);
  const [[a, b, tx], [c, d, ty]] = theta;
  const [p, q, r, s] = [d / det, -b / det, -c / det, a / det];
  return [[p, q, -(p * tx + q * ty)], [r, s, -(r * tx + s * ty)]];
}

export const transformPoint = ([[a, b, tx], [c, d, ty]], [x, y]) => [
  a * x + b * y + tx,
  c * x + d * y + ty,
];

// What θ does to the picture, in this order: scale, shear, rotate, translate. null when singular.
export function decompose(theta) {
  const moved = invert(theta);
  if (!moved) return null;
  const [[a, b, tx], [c, d, ty]] = moved;
  const sx = Math.hypot(a, c);
  const sy = (a * d - b * c) / sx;
  const degrees = (Math.atan2(-c, a) * 180) / Math.PI;
  return { sx, sy, shear: (a * b + c * d) / sx / sy, degrees, tx, ty };
}

// Makes θ do to a picture of these proportions what it does to a square one.
export const correctAspect = ([[a, b, tx], [c, d, ty]], width, height) => [
  [a, (b * height) / width, tx],
  [(c * width) / height, d, ty],
];

// --- θ in words; `stn_tutorial.widgets.describe` writes the same sentence ---

export function describe(theta, width = 1, height = 1) {
  if (isSingular(theta)) {
    return theta.every(([p, q]) => p === 0 && q === 0)
      ? "Every output pixel reads one and the same point of the input."
      : "Every output pixel reads from one line of the input: this map has no inverse.";
  }
  const { tx, ty } = decompose(theta);
  // As it is seen: a normalised unit is W/2 pixels wide and H/2 pixels high.
  const moved = invert(correctAspect(theta, height, width));
  let [[p, q], [r, s]] = moved;
  const parts = [];
  if (p * s - q * r < 0) {
    // Of the two mirrors, the one that leaves the smaller turn to tell of.
    if (p < -1e-9) {
      [p, r] = [-p, -r];
      parts.push("mirrored left to right");
    } else {
      [q, s] = [-q, -s];
      parts.push("mirrored top to bottom");
    }
  }
  let sx = Math.hypot(p, r);
  let sy = (p * s - q * r) / sx;
  let slant = (p * q + r * s) / sx / sy;
  let degrees = (Math.atan2(-r, p) * 180) / Math.PI;
  let side = slant > 0 ? "bottom to the right" : "bottom to the left";
  if (Math.abs(q) < 1e-9 && p > 0 && s > 0) {
    // A downward slant alone, which would otherwise be told as a turn and two more changes.
    [sx, sy, slant, degrees] = [p, s, r / p, 0];
    side = slant > 0 ? "right side down" : "right side up";
  }
  const [wide, high] = [fixed(sx), fixed(sy)];
  if (wide === high) {
    if (wide !== "1") parts.push(`made ${times(wide)} as large`);
  } else {
    const sides = [];
    if (wide !== "1") sides.push(`${times(wide)} as wide`);
    if (high !== "1") sides.push(`${times(high)} as high`);
    parts.push(`made ${sides.join(" and ")}`);
  }
  if (fixed(slant) !== "0") parts.push(`slanted by ${fixed(slant)} (${side})`);
  const turn = fixed(degrees, 1);
  if (turn === "180") parts.push("turned 180°");
  else if (turn !== "0") {
    parts.push(`turned ${turn}° ${degrees > 0 ? "counter-clockwise" : "clockwise"}`);
  }
  const moves = [];
  if (fixed(tx) !== "0") moves.push(`${tx > 0 ? "right" : "left"} by ${fixed(tx)}`);
  if (fixed(ty) !== "0") moves.push(`${ty > 0 ? "down" : "up"} by ${fixed(ty)}`);
  if (moves.length) parts.push(`moved ${moves.join(" and ")}`);
  if (!parts.length) return "The picture stays as it is.";
  const last = parts.pop();
  return `The picture is ${parts.length ? `${parts.join(", ")} and ` : ""}${last}.`;
}

// The size of a number, without its sign, at most so many places and no zeros at the end.
function fixed(value, places = 2) {
  const text = Math.abs(value).toFixed(places);
  return text.includes("e") ? text : text.replace(/\.?0+$/, "");
}

function times(factor) {
  const words = { 2: "twice", 0.5: "half", 0.33: "a third", 0.25: "a quarter" };
  return words[factor] ?? `${factor} times`;
}

// --- Grids ---

// Normalised positions of pixel centres along one axis.
export function centres(count) {
  return Float64Array.from({ length: count }, (_, index) => (2 * index + 1 - count) / count);
}

// Where the output's own pixel centres fall among the input's pixels, along one axis.
export function ownPixels(countIn, countOut) {
  const place = (_, index) => ((2 * index + 1) * countIn - countOut) / (2 * countOut);
  return Float64Array.from({ length: countOut }, place);
}

export const toPixel = (position, count) => ((position + 1) * count - 1) / 2;

export const toNormalised = (pixel, count) => (2 * pixel + 1 - count) / count;

// Where one output pixel reads: normalised, and in the input's pixel coordinates.
export function source(theta, column, row, input, output = input) {
  const x = (2 * column + 1 - output.width) / output.width;
  const y = (2 * row + 1 - output.height) / output.height;
  const [xs, ys] = transformPoint(theta, [x, y]);
  const ownX = ((2 * column + 1) * input.width - output.width) / (2 * output.width);
  const ownY = ((2 * row + 1) * input.height - output.height) / (2 * output.height);
  return {
    target: [x, y],
    source: [xs, ys],
    // Output pixel + displacement: nothing is rounded when the displacement is zero, so that the
    // identity is exact.
    pixel: [ownX + ((xs - x) * input.width) / 2, ownY + ((ys - y) * input.height) / 2],
  };
}

// --- Sampling ---

// Keys' cubic kernel with a = −0.75, PyTorch's and OpenCV's choice.
export function bicubicKernel(distance) {
  const a = -0.75;
  const d = Math.abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((d - 5) * d + 8) * d * a - 4 * a : 0;
}

function halfToEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

// The pixels that a position reads along one axis, and their weights.
export function axisTaps(position, mode) {
  if (mode === "nearest") return [[halfToEven(position), 1]];
  const low = Math.floor(position);
  if (mode === "bilinear") return [[low, 1 - (position - low)], [low + 1, position - low]];
  return [-1, 0, 1, 2].map((k) => [low + k, bicubicKernel(position - low - k)]);
}

// The slope of Keys' kernel, at a signed distance.
function bicubicSlope(distance) {
  const a = -0.75;
  const d = Math.abs(distance);
  const slope = d <= 1 ? (3 * (a + 2) * d - 2 * (a + 3)) * d : ((3 * d - 10) * d + 8) * a;
  return d < 2 ? Math.sign(distance) * slope : 0;
}

// The derivatives of `axisTaps`' weights by the position: those to the right at a whole one.
function axisSlopes(position, mode) {
  if (mode === "nearest") return [0];
  if (mode === "bilinear") return [-1, 1];
  const part = position - Math.floor(position);
  return [-1, 0, 1, 2].map((k) => bicubicSlope(part - k));
}

// The pixels that a position (in pixels) reads and their weights, row by row. Cells are half open:
// at a whole position the neighbours are those to the right and below.
export function taps([x, y], mode = "bilinear") {
  const columns = axisTaps(x, mode);
  return axisTaps(y, mode).flatMap(([row, wy]) =>
    columns.map(([column, wx]) => ({ column, row, weight: wx * wy })),
  );
}

// The value at one pixel, all channels; zeros outside.
export function read({ width, height, channels, data }, column, row) {
  const inside = column >= 0 && column < width && row >= 0 && row < height;
  const start = (row * width + column) * channels;
  return Array.from({ length: channels }, (_, c) => (inside ? data[start + c] : 0));
}

// The value at one position (in pixels), all channels; zeros outside.
export function sampleAt(picture, pixel, mode = "bilinear") {
  const total = new Array(picture.channels).fill(0);
  if (!pixel.every(Number.isFinite)) return total;
  for (const { column, row, weight } of taps(pixel, mode)) {
    read(picture, column, row).forEach((value, c) => { total[c] += weight * value; });
  }
  return total;
}

// ∂V/∂x and ∂V/∂y at one position (in pixels), all channels, by pixel: times half a side, by
// normalised unit. What autograd makes of `sample`.
export function slopesAt(picture, pixel, mode = "bilinear") {
  const slopes = [0, 1].map(() => new Array(picture.channels).fill(0));
  if (!pixel.every(Number.isFinite)) return slopes;
  const [columns, rows] = pixel.map((position) => axisTaps(position, mode));
  const [alongX, alongY] = pixel.map((position) => axisSlopes(position, mode));
  rows.forEach(([row, wy], r) => columns.forEach(([column, wx], c) => {
    read(picture, column, row).forEach((value, k) => {
      slopes[0][k] += alongX[c] * wy * value;
      slopes[1][k] += wx * alongY[r] * value;
    });
  }));
  return slopes;
}

// A whole output, as `sample` gives it: Float64Array of rows, channels last.
export function warp(picture, theta, output = picture, mode = "bilinear") {
  const { channels } = picture;
  const result = new Float64Array(output.width * output.height * channels);
  for (let row = 0, place = 0; row < output.height; row++) {
    for (let column = 0; column < output.width; column++, place += channels) {
      result.set(sampleAt(picture, source(theta, column, row, picture, output).pixel, mode), place);
    }
  }
  return result;
}

// Forward mapping, as `splat` does it: each input pixel goes to the output pixel nearest to where it
// moves; several leave their mean. null for a singular θ.
export function splat(picture, theta, output = picture) {
  const forward = invert(theta);
  if (!forward) return null;
  const { channels } = picture;
  const count = output.width * output.height;
  const hits = new Uint32Array(count);
  const data = new Float64Array(count * channels);
  const xs = centres(picture.width);
  // Less a thousandth of a pixel, as there: half-way between two pixels is left and up.
  const land = (position, side) => halfToEven(toPixel(position, side) - 1e-3);
  centres(picture.height).forEach((y, i) => xs.forEach((x, j) => {
    const [movedX, movedY] = transformPoint(forward, [x, y]);
    const column = land(movedX, output.width);
    const row = land(movedY, output.height);
    if (!(column >= 0 && column < output.width && row >= 0 && row < output.height)) return;
    const place = row * output.width + column;
    hits[place]++;
    for (let c = 0; c < channels; c++) {
      data[place * channels + c] += picture.data[(i * picture.width + j) * channels + c];
    }
  }));
  for (let k = 0; k < data.length; k++) data[k] /= Math.max(hits[Math.floor(k / channels)], 1);
  // A hole: nothing landed, although what is seen there lies inside the picture.
  const columns = [...centres(output.width)];
  const covered = [...centres(output.height)].flatMap((y) => columns.map((x) =>
    transformPoint(theta, [x, y]).every((position) => Math.abs(position) < 1)));
  return { data, hits, holes: covered.map((inside, k) => inside && hits[k] === 0) };
}

// What the screen shows: the same as `warp`, bilinear, into RGBA bytes, for the speed of a frame.
// The test compares the two.
export function warpInto(rgba, picture, theta, output = picture) {
  const { width, height } = picture;
  const [[a, b, tx], [c, d, ty]] = theta;
  const xs = centres(output.width);
  const ys = centres(output.height);
  const ownX = ownPixels(width, output.width);
  const ownY = ownPixels(height, output.height);
  for (let i = 0, place = 0; i < output.height; i++) {
    const y = ys[i];
    for (let j = 0; j < output.width; j++, place += 4) {
      const x = xs[j];
      const px = ownX[j] + ((a * x + b * y + tx - x) * width) / 2;
      const py = ownY[i] + ((c * x + d * y + ty - y) * height) / 2;
      readInto(rgba, place, picture, px, py);
    }
  }
  return rgba;
}

// One pixel of it.
function readInto(rgba, place, { width, height, channels, data }, px, py) {
  let red = 0;
  let green = 0;
  let blue = 0;
  if (px > -1 && px < width && py > -1 && py < height) {
    const second = channels === 3 ? 1 : 0;
    const third = 2 * second;
    const down = width * channels;
    const left = Math.floor(px);
    const top = Math.floor(py);
    const fx = px - left;
    const fy = py - top;
    const start = top * down + left * channels;
    // Weight 0 for a neighbour outside, so that nothing there is read.
    const wl = left < 0 ? 0 : 1 - fx;
    const wr = left + 1 < width ? fx : 0;
    const wt = top < 0 ? 0 : 1 - fy;
    const wb = top + 1 < height ? fy : 0;
    const at = (weight, index) => {
      if (weight === 0) return;
      red += weight * data[index];
      green += weight * data[index + second];
      blue += weight * data[index + third];
    };
    at(wl * wt, start);
    at(wr * wt, start + channels);
    at(wl * wb, start + down);
    at(wr * wb, start + down + channels);
  }
  rgba[place] = red;
  rgba[place + 1] = green;
  rgba[place + 2] = blue;
  rgba[place + 3] = 255;
}

// --- Beyond affine: a homography, a mesh of triangles, a thin-plate spline ---

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
  const own = regularGrid(output);
  const [ownX, ownY] = [ownPixels(width, output.width), ownPixels(height, output.height)];
  const result = new Float64Array(output.width * output.height * channels);
  for (let k = 0; k < output.width * output.height; k++) {
    const pixel = [
      ownX[k % output.width] + ((grid[2 * k] - own[2 * k]) * width) / 2,
      ownY[Math.floor(k / output.width)] + ((grid[2 * k + 1] - own[2 * k + 1]) * height) / 2,
    ];
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

// --- Pooling a signal whose ends meet ---

const PASCAL = { 0: [1], 3: [1, 2, 1], 5: [1, 4, 6, 4, 1] };

// Moves a signal so many places to the right.
export const roll = (signal, by) => signal.map((_, k) => {
  const count = signal.length;
  return signal[(((k - by) % count) + count) % count];
});

// Blur-pool (Zhang, 2019): the larger of each entry and the next, a binomial blur of so many taps (0:
// none), every `stride`-th entry.
export function blurPool(signal, stride, taps = 0) {
  const maxima = roll(signal, -1).map((next, k) => Math.max(signal[k], next));
  const row = PASCAL[taps];
  const middle = row.length >> 1;
  const total = row.reduce((sum, weight) => sum + weight);
  const blurred = maxima.map((_, k) => row.reduce((sum, weight, tap) =>
    sum + (weight / total) * roll(maxima, middle - tap)[k], 0));
  return { maxima, blurred, output: blurred.filter((_, k) => k % stride === 0) };
}

// --- Registration by gradient descent on θ: a shift and a turn ---

// Gaussian blur, cut off at three standard deviations; zeros outside. One channel.
export function gaussianBlur(picture, sigma) {
  if (!sigma) return picture;
  const { width, height } = picture;
  const reach = Math.ceil(3 * sigma);
  const weights = Array.from({ length: 2 * reach + 1 },
    (_, k) => Math.exp(-((k - reach) ** 2) / (2 * sigma * sigma)));
  const total = weights.reduce((sum, weight) => sum + weight);
  const along = (data, step, count, start) => {
    const result = new Float64Array(data.length);
    for (let place = 0; place < data.length; place++) {
      const own = start(place);
      for (let k = Math.max(-reach, -own); k <= Math.min(reach, count - 1 - own); k++) {
        result[place] += (weights[k + reach] / total) * data[place + k * step];
      }
    }
    return result;
  };
  const rows = along(picture.data, 1, width, (place) => place % width);
  const data = along(rows, width, height, (place) => Math.floor(place / width));
  return { ...picture, data };
}

// θ of a pose [tx, ty, α], α in radians, and back.
export const poseTheta = ([tx, ty, alpha]) => [
  [Math.cos(alpha), -Math.sin(alpha), tx], [Math.sin(alpha), Math.cos(alpha), ty],
];

export const thetaPose = ([[a, , tx], [c, , ty]]) => [tx, ty, Math.atan2(c, a)];

// The mean squared difference of V and the target, and its gradient by [tx, ty, α]: the chain of
// ∂L/∂V, ∂V/∂x and ∂x/∂θ. One channel, bilinear.
export function misfit(picture, target, pose) {
  const { width, height, data } = picture;
  const [[cos, back, tx], [sin, , ty]] = poseTheta(pose);
  const [xs, ys] = [centres(target.width), centres(target.height)];
  const ownX = ownPixels(width, target.width);
  const ownY = ownPixels(height, target.height);
  const count = target.width * target.height;
  const output = new Float64Array(count);
  const gradient = [0, 0, 0];
  let loss = 0;
  const at = (column, row) => (column >= 0 && column < width && row >= 0 && row < height
    ? data[row * width + column] : 0);
  for (let i = 0, place = 0; i < target.height; i++) {
    for (let j = 0; j < target.width; j++, place++) {
      const x = xs[j];
      const y = ys[i];
      const px = ownX[j] + ((cos * x + back * y + tx - x) * width) / 2;
      const py = ownY[i] + ((sin * x + cos * y + ty - y) * height) / 2;
      let value = 0;
      let alongX = 0;
      let alongY = 0;
      if (px >= -1 && px < width && py >= -1 && py < height) {
        const left = Math.floor(px);
        const top = Math.floor(py);
        const fx = px - left;
        const fy = py - top;
        const a = at(left, top);
        const b = at(left + 1, top);
        const c = at(left, top + 1);
        const d = at(left + 1, top + 1);
        value = (1 - fy) * ((1 - fx) * a + fx * b) + fy * ((1 - fx) * c + fx * d);
        alongX = (((1 - fy) * (b - a) + fy * (d - c)) * width) / 2;
        alongY = (((1 - fx) * (c - a) + fx * (d - b)) * height) / 2;
      }
      output[place] = value;
      const gap = value - target.data[place];
      loss += (gap * gap) / count;
      const share = (2 * gap) / count;
      gradient[0] += share * alongX;
      gradient[1] += share * alongY;
      gradient[2] += share * (alongX * (back * x - cos * y) + alongY * (cos * x + back * y));
    }
  }
  return { loss, gradient, output };
}

// One step down the slope; without `turn`, of the shift alone.
export const descend = (pose, gradient, rate, turn) =>
  pose.map((value, k) => (k < 2 || turn ? value - rate * gradient[k] : value));
