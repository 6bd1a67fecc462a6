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
export function fixed(value, places = 2) {
  const text = Math.abs(value).toFixed(places);
  return text.includes("e") ? text : text.replace(/\.?0+$/, "");
}

function times(factor) {
  const words = { 0: "less than 0.01 times", 2: "twice", 0.5: "half", 0.33: "a third", 0.25: "a quarter" };
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

// `toPixel` as the sampler has it: the nearest whole or half pixel + the displacement from it, so that
// nothing is rounded when that is zero. The identity is exact, and so is every tie of `nearest`.
export function sourcePixel(position, count) {
  const nearest = Math.max(-count, Math.min(halfToEven(position * count), count));
  return (position - nearest / count) * (count / 2) + (nearest + count - 1) / 2;
}

// Where one output pixel reads: normalised, and in the input's pixel coordinates.
export function source(theta, column, row, input, output = input) {
  const x = (2 * column + 1 - output.width) / output.width;
  const y = (2 * row + 1 - output.height) / output.height;
  const [xs, ys] = transformPoint(theta, [x, y]);
  return {
    target: [x, y],
    source: [xs, ys],
    pixel: [sourcePixel(xs, input.width), sourcePixel(ys, input.height)],
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

// What the screen shows: the same as `warp`, bilinear, into RGBA bytes, for the speed of a frame: the
// output's own pixel + the displacement, which is as exact for the identity, and rounds other
// positions differently in their last bits, where no tie depends on them. The test compares the two.
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
export function readInto(rgba, place, { width, height, channels, data }, px, py) {
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
