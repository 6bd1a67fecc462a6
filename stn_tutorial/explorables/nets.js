// What the explorables with trained networks share: the networks, run in the page, the frame that a
// digit stands in, and how both are shown. `stn_tutorial.explorables.digit_nets` has them in PyTorch.

import { centres, compose, ownPixels, rotation, scaling, transformPoint, translation } from "./maths.js";
import { h, setAttribute, setText, stroke } from "./ui.js";

export const FRAME = 42; // pixels a side: what the networks read
export const SEEN = 28; // what the transformer gives

// --- The networks: a picture is {width, height, channels, data}, here with channels first. What is
// computed of one has its precision: a Float32Array's or a Float64Array's ---

// float16 in base64, little-endian, as numbers.
export function decodeHalf(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return Float32Array.from({ length: bytes.length / 2 }, (_, k) => {
    const bits = bytes[2 * k] | (bytes[2 * k + 1] << 8);
    const [exponent, part] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent ? 2 ** (exponent - 25) * (1024 + part) : 2 ** -24 * part;
    return bits >> 15 ? -size : size;
  });
}

// Cuts the weights into layers: {name: [{kind, …, weight, bias}]}.
export function unpack({ chains, weights }) {
  const numbers = decodeHalf(weights);
  let start = 0;
  const take = (count) => numbers.subarray(start, (start += count));
  return Object.fromEntries(Object.entries(chains).map(([name, layers]) => [name,
    layers.map(([kind, ...sizes]) => {
      if (kind === "max" || kind === "mean") return { kind, side: sizes[0] };
      const [inputs, outputs, side = 1] = sizes;
      if (kind === "conv" && side !== 3 && side !== 5) throw new Error(`a kernel of ${side}×${side}`);
      return {
        kind, inputs, outputs, side,
        weight: take(outputs * inputs * side * side), bias: take(outputs),
      };
    }),
  ]));
}

function pooled({ width, height, channels, data }, { kind, side }) {
  const [wide, high] = [Math.floor(width / side), Math.floor(height / side)];
  const result = new data.constructor(channels * wide * high);
  let place = 0;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < high; i++) {
      for (let j = 0; j < wide; j++) {
        let [most, sum] = [-Infinity, 0];
        for (let r = 0; r < side; r++) {
          const row = (c * height + i * side + r) * width + j * side;
          for (let k = row; k < row + side; k++) {
            most = Math.max(most, data[k]);
            sum += data[k];
          }
        }
        result[place++] = kind === "max" ? most : sum / side / side;
      }
    }
  }
  return { width: wide, height: high, channels, data: result };
}

// For each input and output channel one sweep over the rows, so that neighbours in the loop are
// neighbours in memory. Of a 3×3 kernel all nine weights stay at hand meanwhile, of a 5×5 kernel
// those of one row: a third, and half, of the time.
function convolved({ width, height, data }, { inputs, outputs, side, weight, bias }) {
  const [wide, high] = [width - side + 1, height - side + 1];
  const result = new data.constructor(outputs * wide * high);
  for (let o = 0, w = 0; o < outputs; o++) {
    const from = o * wide * high;
    result.fill(bias[o], from, from + wide * high);
    for (let c = 0; c < inputs; c++, w += side * side) {
      if (side === 3) {
        const [k0, k1, k2, k3, k4, k5, k6, k7, k8] = weight.subarray(w, w + 9);
        for (let i = 0; i < high; i++) {
          const write = from + i * wide;
          let top = (c * height + i) * width;
          for (let j = 0; j < wide; j++, top++) {
            const middle = top + width;
            const low = middle + width;
            result[write + j] += k0 * data[top] + k1 * data[top + 1] + k2 * data[top + 2]
              + k3 * data[middle] + k4 * data[middle + 1] + k5 * data[middle + 2]
              + k6 * data[low] + k7 * data[low + 1] + k8 * data[low + 2];
          }
        }
        continue;
      }
      for (let row = 0; row < side; row++) {
        const [k0, k1, k2, k3, k4] = weight.subarray(w + row * side, w + row * side + 5);
        for (let i = 0; i < high; i++) {
          const write = from + i * wide;
          let at = (c * height + i + row) * width;
          for (let j = 0; j < wide; j++, at++) {
            result[write + j] += k0 * data[at] + k1 * data[at + 1] + k2 * data[at + 2]
              + k3 * data[at + 3] + k4 * data[at + 4];
          }
        }
      }
    }
  }
  return { width: wide, height: high, channels: outputs, data: result };
}

function dense(data, { inputs, outputs, weight, bias }) {
  return data.constructor.from({ length: outputs }, (_, o) => {
    let sum = bias[o];
    for (let k = 0; k < inputs; k++) sum += weight[o * inputs + k] * data[k];
    return sum;
  });
}

// A chain's numbers for one picture; a ReLU after each layer with weights but the last.
export function forward(layers, picture) {
  let now = picture;
  layers.forEach((layer, k) => {
    if (layer.kind === "conv") now = convolved(now, layer);
    else if (layer.kind === "dense") now = { data: dense(now.data, layer) };
    else now = pooled(now, layer);
    if (layer.weight && k < layers.length - 1) {
      for (let i = 0; i < now.data.length; i++) now.data[i] = Math.max(now.data[i], 0);
    }
  });
  return now.data;
}

export function softmax(scores) {
  const most = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// `warp` of one channel, for the speed of a frame: the same formula, nothing read outside.
export function seenThrough({ width, height, data }, theta, side, Numbers = Float32Array) {
  const result = new Numbers(side * side);
  const [places, ownX, ownY] = [centres(side), ownPixels(width, side), ownPixels(height, side)];
  const [[a, b, tx], [c, d, ty]] = theta;
  for (let i = 0, place = 0; i < side; i++) {
    for (let j = 0; j < side; j++, place++) {
      const [x, y] = [places[j], places[i]];
      const px = ownX[j] + ((a * x + b * y + tx - x) * width) / 2;
      const py = ownY[i] + ((c * x + d * y + ty - y) * height) / 2;
      if (!(px > -1 && px < width && py > -1 && py < height)) continue;
      const [left, top] = [Math.floor(px), Math.floor(py)];
      const [fx, fy] = [px - left, py - top];
      const start = top * width + left;
      const [inLeft, inRight] = [left >= 0, left + 1 < width];
      let sum = 0;
      if (top >= 0) {
        if (inLeft) sum += (1 - fx) * (1 - fy) * data[start];
        if (inRight) sum += fx * (1 - fy) * data[start + 1];
      }
      if (top + 1 < height) {
        if (inLeft) sum += (1 - fx) * fy * data[start + width];
        if (inRight) sum += fx * fy * data[start + width + 1];
      }
      result[place] = sum;
    }
  }
  return result;
}

// --- The frame ---

// Turned by degrees, made `size` times as large, moved by (x, y): θ, from frame to what was drawn.
export const posed = ([degrees, size, x, y]) =>
  compose(compose(scaling(size), rotation(degrees)), translation(x, y));

// A picture of 28×28 bytes in the frame: at size 1 its pixels are the frame's.
export const placed = (picture, pose, Numbers) =>
  seenThrough(picture, compose(scaling(picture.width / FRAME), posed(pose)), FRAME, Numbers)
    .map((value) => value / 255);

// --- How they are shown ---

// Values in [0, 1] onto a canvas of their own.
export const greyCanvas = (side) => {
  const canvas = h("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  return (values) => {
    for (let k = 0, place = 0; k < values.length; k++, place += 4) {
      image.data.fill(255 * values[k], place, place + 3);
      image.data[place + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  };
};

// V's square in the frame, as the grid has it.
export function drawWindow(context, self, colours, theta) {
  const line = (...points) => points.map((point) => self.place(...transformPoint(theta, point)));
  for (const k of [-0.5, 0, 0.5]) {
    stroke(context, colours, colours.grid, 1.25, line([k, -1], [k, 1]));
    stroke(context, colours, colours.grid, 1.25, line([-1, k], [1, k]));
  }
  stroke(context, colours, colours.grid, 2.5, line([-1, -1], [1, -1], [1, 1], [-1, 1]), true);
  // V's upper edge, so that a turn is told from its opposite.
  stroke(context, colours, colours.output, 3.5, line([-1, -1], [1, -1]));
}

export const wholePercent = (share) => `${Math.round(100 * share)}\u00a0%`;

// A bar for each of the ten digits, or of so many numbers from 0 on, or of what these names are.
export const odds = (kind, name, count = 10) => {
  const names = Array.isArray(count) ? count : [...Array(count).keys()].map(String);
  const rows = names.map((one) => {
    const [bar, share] = [h("i"), h("span")];
    const element = h("div", { class: "odds" }, h("b", {}, one), h("div", {}, bar), share);
    return { element, bar, share };
  });
  const element = h("div", { role: "img" }, ...rows.map((row) => row.element));
  const update = (values) => {
    const best = values && values.indexOf(Math.max(...values));
    rows.forEach((row, k) => {
      const value = values ? values[k] : 0;
      row.bar.style.transform = `scaleX(${value})`;
      setText(row.share, value >= 0.005 ? wholePercent(value) : "");
      row.element.classList.toggle("best", k === best);
    });
    setAttribute(element, "aria-label", values ? `${name}: ${values
      .map((value, k) => [value, k]).filter(([value]) => value >= 0.005)
      .sort(([a], [b]) => b - a).map(([value, k]) => `${names[k]} ${wholePercent(value)}`).join(", ")}.` : name);
  };
  return { panel: h("figure", { class: kind }, h("figcaption", {}, h("b", {}, name)), element), update };
};
