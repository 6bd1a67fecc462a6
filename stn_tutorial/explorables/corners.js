// The corners explorable: a projective map, by where it takes the output's four corners.

import { beyondHorizon, describeCorners, homography, projectLine } from "./warps.js";
import { projectiveGrid } from "./warps.js";
import { dragging } from "./dragging.js";
import { explorable, h, number, setText, stroke } from "./ui.js";

// From an output corner to where it reads.
const CORNERS = {
  Identity: ([x, y]) => [x, y],
  Keystone: ([x, y]) => [y < 0 ? 0.55 * x : x, y],
  Tilt: ([x, y]) => [0.75 * x - 0.1 * y, y * (x < 0 ? 0.95 : 0.5)],
  "Quarter turn": ([x, y]) => [-y, x],
  Horizon: ([x, y]) => (x + y > 1 ? [-0.3, -0.3] : [x, y]),
};

const PLACES = ["upper left", "upper right", "lower left", "lower right"];

explorable("corners", (view) => {
  const cells = [0, 1, 2].map(() => [0, 1, 2].map(() => h("td")));
  const table = h("table", { class: "entries" },
    h("caption", { class: "unseen" }, "The matrix θ"),
    h("tbody", {}, ...cells.map((row) => h("tr", {}, ...row))));

  function map(points, own, { width, height }) {
    const theta = homography(points);
    const [words, aside] = describeCorners(points, width, height);
    const beyond = theta ? beyondHorizon(theta) : [];
    return {
      theta,
      words,
      aside,
      wrong: beyond.length > 0 || /no inverse|no projective/.test(aside),
      // Nowhere, where there is no map.
      grid: theta ? projectiveGrid(theta, own) : new Float64Array(own.length).fill(NaN),
      paint(context, self, at, colours) {
        if (!theta) return;
        const line = (a, b, width, colour) => {
          for (const { ends, beyond } of projectLine(theta, a, b)) {
            stroke(context, colours, beyond ? colours.error : colour, width, ends.map(at));
          }
        };
        for (let k = -3; k <= 3; k++) {
          line([k / 4, -1], [k / 4, 1], 1.5, colours.grid);
          line([-1, k / 4], [1, k / 4], 1.5, colours.grid);
        }
        const rim = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
        // The grid's rim is the output's frame, as the input sees it.
        rim.forEach((a, k) => line(a, rim[(k + 1) % 4], 2.25, colours.output));
      },
      trace(context, at) {
        (beyond.length ? beyond : [[-1, -1], [1, -1], [1, 1], [-1, 1]]).map(at)
          .forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      },
    };
  }

  return dragging(view, {
    key: "corners",
    traits: [],
    presets: CORNERS,
    numbered: true,
    chosen: 0,
    names: (index) => `Corner ${index + 1}, ${PLACES[index]}`,
    map,
    parts: () => [h("div", { class: "theta" }, h("span", { "aria-hidden": "true" }, "θ ="), table)],
    choices: [],
    update(_, { theta }) {
      cells.forEach((row, r) => row.forEach((cell, c) => {
        setText(cell, theta ? number(theta[r][c]) : "–");
      }));
    },
  });
});
