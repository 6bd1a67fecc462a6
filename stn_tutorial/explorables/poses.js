// What a reader may do to a digit in its frame: move, turn and scale it, by fingers, handles, keys and
// sliders. A pose is [degrees, size, right, down], as `posed` has it.

import { invert, transformPoint } from "./maths.js";
import { FRAME, posed } from "./nets.js";
import { field } from "./fields.js";
import { handle, number } from "./ui.js";

const CORNER = 0.52; // where the handle stands at size 1, right of the middle and above it
const SIZES = [0.3, 2.5];

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// A pose within the bounds that the kernel keeps.
export function bounded(degrees, size, x, y) {
  const turn = degrees - 360 * Math.round(degrees / 360.001);
  return [turn, clamp(size, ...SIZES), clamp(x, -1, 1), clamp(y, -1, 1)];
}

// A finger went from one point to another. It moves the digit; or, where another finger stands still,
// turns it about that one by the angle that it went, and scales it.
export function dragged([degrees, size, x, y], before, after, still) {
  if (!still) return [degrees, size, x + after[0] - before[0], y + after[1] - before[1]];
  const [[ax, ay], [bx, by]] = [before, after].map((one) => [one[0] - still[0], one[1] - still[1]]);
  const least = Math.max(ax * ax + ay * ay, 1e-4);
  const [p, q] = [(ax * bx + ay * by) / least, (ax * by - ay * bx) / least];
  const [dx, dy] = [x - still[0], y - still[1]];
  return [degrees - (Math.atan2(q, p) * 180) / Math.PI, size * Math.hypot(p, q),
    still[0] + p * dx - q * dy, still[1] + q * dx + p * dy];
}

// Two handles on a plane: where the digit stands, for keys, and how it is turned and how large it is.
// `get` gives the pose, `put` is given another; `whose` goes behind their names.
export function poseHandles(self, { get, put, digit = "the digit", whose = "" }) {
  const place = handle(self, {
    name: `Place of ${digit}`, help: "Arrow keys move it by a pixel, with Shift by ten.",
    // For keys: a finger on it is one on the paper, and may be one of two.
    kind: "start keys",
    moved: (x, y) => put(...get().slice(0, 2), x, y),
    nudged(dx, dy) {
      const [degrees, size, x, y] = get();
      put(degrees, size, x + (2 * dx) / FRAME, y + (2 * dy) / FRAME);
    },
  });
  const grip = handle(self, {
    name: `Turn and size${whose}`, kind: "o",
    help: "Left and right turn by a degree, up and down change the size; with Shift ten times as much.",
    moved(x, y) {
      const [, , right, down] = get();
      const [dx, dy] = [x - right, y - down];
      put((-Math.atan2(dy, dx) * 180) / Math.PI - 45, Math.hypot(dx, dy) / CORNER / Math.SQRT2,
        right, down);
    },
    nudged(dx, dy) {
      const [degrees, size, x, y] = get();
      put(degrees - dx, size * 1.01 ** -dy, x, y);
    },
  });
  return () => {
    const [degrees, size, x, y] = get();
    place.put(x, y, `${number(x)}, ${number(y)}`);
    grip.put(...transformPoint(invert(posed(get())), [CORNER, -CORNER]),
      `turned by ${number(degrees, 0)} degrees, ${number(size)} times as large`);
  };
}

// Four sliders with number entries.
export function poseFields({ get, put }) {
  const fields = [
    ["turn", "Turn in degrees, counter-clockwise", -180, 180, 1, 5],
    ["size", "Size", ...SIZES, 0.01, 0.1],
    ["right", "Moved right, in half frames", -1, 1, 0.01, 0.1],
    ["down", "Moved down, in half frames", -1, 1, 0.01, 0.1],
  ].map(([name, label, low, high, step, jump], k) => field({
    name, label, low, high, step, jump,
    onedit: (value) => put(...get().map((one, n) => (n === k ? value : one))),
  }));
  const update = () => fields.forEach((one, k) => one.update(Math.round(get()[k] * 1e6) / 1e6));
  return { elements: fields.map((one) => one.element), update };
}
