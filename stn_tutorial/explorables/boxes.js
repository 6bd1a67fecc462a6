// Boxes over a feature map: what RoIPool and RoIAlign read of them, as `stn_tutorial.regions` has it,
// and what the picture itself holds there. A box is [left, top, right, bottom] in the picture's
// pixels; pictures and maps are grey, {width, height, data}. tests/test_explorable_maths.py holds all
// of it to PyTorch.

// A feature map whose meaning is known: the picture's mean over each block of stride × stride pixels;
// where the picture's edge cuts a block, over what there is of it.
export function blockMeans({ width, height, data }, stride) {
  const [columns, rows] = [width, height].map((side) => Math.ceil(side / stride));
  const sums = new Float64Array(columns * rows);
  const counts = new Float64Array(columns * rows);
  for (let y = 0, k = 0; y < height; y++) {
    const row = Math.floor(y / stride) * columns;
    for (let x = 0; x < width; x++, k++) {
      const place = row + Math.floor(x / stride);
      sums[place] += data[k];
      counts[place]++;
    }
  }
  return { width: columns, height: rows, data: sums.map((sum, k) => sum / counts[k]) };
}

// Along one axis, the part of each bin that lies in the picture: its first pixel, and how much of it
// and of those after it the bin covers.
function covered(low, high, bins, side) {
  return Array.from({ length: bins }, (_, k) => {
    const from = Math.max(low + ((high - low) * k) / bins, 0);
    const to = Math.min(low + ((high - low) * (k + 1)) / bins, side);
    const first = Math.floor(from);
    const weights = [];
    for (let p = first; p < to; p++) weights.push(Math.min(p + 1, to) - Math.max(p, from));
    return { first, weights, length: to - from };
  });
}

// The picture's own mean over each bin, pixels being squares of one value; NaN where no part of a bin
// lies in the picture.
export function exactMeans({ width, height, data }, [left, top, right, bottom], bins) {
  const columns = covered(left, right, bins, width);
  return covered(top, bottom, bins, height).flatMap((row) => columns.map((column) => {
    if (!(row.length > 0 && column.length > 0)) return NaN;
    let total = 0;
    row.weights.forEach((wy, r) => {
      const start = (row.first + r) * width + column.first;
      let sum = 0;
      for (let c = 0; c < column.weights.length; c++) sum += column.weights[c] * data[start + c];
      total += wy * sum;
    });
    return total / row.length / column.length;
  }));
}

// Halves go away from zero.
const roundAway = (value) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);

// RoIPool's bins along one axis: the first pixel of each, and the one after its last.
function pooledSpans(low, high, bins, side) {
  const [first, last] = [roundAway(low), roundAway(high)];
  const step = Math.max(last - first + 1, 1) / bins;
  const within = (edge) => Math.min(Math.max(edge + first, 0), side);
  return Array.from({ length: bins }, (_, k) =>
    [within(Math.floor(k * step)), within(Math.ceil((k + 1) * step))]);
}

// RoIPool: the largest value of each bin of whole pixels, or, to see what the rounding alone does,
// their mean; 0 for a bin without a pixel. With it, the bins along x and along y.
export function roiPool({ width, height, data }, box, bins, scale, mean = false) {
  const [left, top, right, bottom] = box.map((edge) => edge * scale);
  const xs = pooledSpans(left, right, bins, width);
  const ys = pooledSpans(top, bottom, bins, height);
  const values = ys.flatMap(([y0, y1]) => xs.map(([x0, x1]) => {
    if (y0 >= y1 || x0 >= x1) return 0;
    let [most, sum] = [-Infinity, 0];
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const value = data[y * width + x];
        most = Math.max(most, value);
        sum += value;
      }
    }
    return mean ? sum / (y1 - y0) / (x1 - x0) : most;
  }));
  return { values, xs, ys };
}

// RoIAlign's samples along one axis: how many each bin has, where they stand (whole numbers at the
// centres of pixels), and the two pixels that each reads, with the second one's share.
function alignedSamples(low, high, bins, side, ratio, aligned) {
  let end = high - (aligned ? 0.5 : 0);
  const start = low - (aligned ? 0.5 : 0);
  if (!aligned) end = start + Math.max(end - start, 1);
  const each = ratio > 0 ? ratio : Math.max(1, Math.ceil(Math.abs(end - start) / bins));
  const places = Array.from({ length: bins * each }, (_, k) =>
    start + ((k + 0.5) / (bins * each)) * (end - start));
  // Less than a rounding error beyond the edge's own pixel counts as inside.
  const slack = 16 * 2 ** -52 * side;
  const taps = places.map((place) => {
    if (!(place >= -1 - slack && place <= side + slack)) return null;
    const inside = Math.min(Math.max(place, 0), side - 1);
    const first = Math.min(Math.floor(inside), Math.max(side - 2, 0));
    return [first, Math.min(first + 1, side - 1), inside - first];
  });
  return { each, places, taps };
}

// RoIAlign: the mean of each bin's samples, read bilinearly; the map's edge goes on for one pixel, and
// beyond it they read 0. With it, the samples along x and along y. A `ratio` of 0 or less takes as many
// for each side of a bin as it has pixels.
export function roiAlign({ width, height, data }, box, bins, scale, ratio, aligned) {
  const [left, top, right, bottom] = box.map((edge) => edge * scale);
  const xs = alignedSamples(left, right, bins, width, ratio, aligned);
  const ys = alignedSamples(top, bottom, bins, height, ratio, aligned);
  const values = new Array(bins * bins).fill(0);
  ys.taps.forEach((down, i) => xs.taps.forEach((across, j) => {
    if (!down || !across) return;
    const [x0, x1, fx] = across;
    const row = (y) => (1 - fx) * data[y * width + x0] + fx * data[y * width + x1];
    const value = (1 - down[2]) * row(down[0]) + down[2] * row(down[1]);
    values[Math.floor(i / ys.each) * bins + Math.floor(j / xs.each)] += value / ys.each / xs.each;
  }));
  return { values, xs, ys };
}

// How far beside the middle of each bin its reader looks, along one axis and in pixels of the picture:
// `middles` is where it looks, in pixels of the map, counted from its edge. NaN where it sees nothing.
export const lookedBeside = (middles, low, high, stride) => middles.map((middle, k) =>
  middle * stride - (low + ((high - low) * (k + 0.5)) / middles.length));

// Where each bin of `roiPool` or `roiAlign` looks, along one axis.
export const pooledMiddles = (spans) => spans.map(([from, to]) => (from < to ? (from + to) / 2 : NaN));

export const alignedMiddles = ({ each, places }) => {
  const bins = places.length / each;
  return Array.from({ length: bins }, (_, k) => {
    const mine = places.slice(k * each, (k + 1) * each);
    return mine.reduce((sum, place) => sum + place) / each + 0.5;
  });
};
