// A question in the page: a number, a choice or a θ to set. `Question.check` judges as `judge` does.

import { identity, warpInto } from "./maths.js";
import { matrix } from "./fields.js";
import { drawPicture, explorable, frame, frames, h, palette, plane, save } from "./ui.js";

// "−0,5", ".5" and "1/2" are numbers; whatever is not is null.
export function readNumber(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".");
  const part = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;
  const parts = plain.split("/").map((one) => one.trim());
  if (parts.length > 2 || !parts.every((one) => part.test(one))) return null;
  const value = parts.map(Number).reduce((above, below) => above / below);
  return Number.isFinite(value) ? value : null;
}

export const near = (answer, expected, within) => {
  const [given, wanted] = [answer, expected].map((one) => [one].flat(2));
  return given.length === wanted.length
    && given.every((value, k) => Math.abs(value - wanted[k]) <= within + 1e-9);
};

// What an answer is told: {right, say}.
export function judge(question, answer) {
  if (question.kind === "choice") {
    const { right = false, say } = question.choices[answer];
    return { right, say };
  }
  if (near(answer, question.answer, question.within)) return { right: true, say: question.right };
  const wrong = question.wrong.find((one) => ("from" in one
    ? one.from <= answer && answer <= one.to : near(answer, one.answer, question.within)));
  return { right: false, say: wrong?.say ?? question.hint };
}

// `code` and *emphasis* as elements, everything else as text.
export const markedUp = (text) => text.split(/(`[^`]+`|\*[^*]+\*)/).filter(Boolean).map((part) =>
  (/^`.+`$/.test(part) ? h("code", {}, part.slice(1, -1))
    : /^\*.+\*$/.test(part) ? h("em", {}, part.slice(1, -1)) : part));

// The reader's own browser remembers; where it may not, nothing does.
const memory = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // A page that was opened from disk, or a browser that keeps nothing.
    }
  },
};

explorable("question", ({ model, root, pictures, onTheme }) => {
  const question = model.get("_question");
  const key = `stn-question/${question.name}`;
  const group = `stn${Math.random()}`;
  const feedback = h("p", { class: "feedback", role: "status" });
  const parts = {
    number() {
      const entry = h("input", {
        type: "text", inputMode: "decimal", autocomplete: "off", class: "answer",
        "aria-label": `Your answer${question.unit ? ` in ${question.unit}` : ""}`,
        oninput: changed,
      });
      return {
        element: h("label", { class: "line" }, "Your answer ", entry,
          ...(question.unit ? [` ${question.unit}`] : [])),
        read: () => readNumber(entry.value),
        write: (value) => { entry.value = value === null ? "" : String(value).replace("-", "−"); },
        missing: "A number is wanted here, such as 3, 0.25 or 1/4.",
      };
    },
    choice() {
      const radios = question.choices.map((_, value) => h("input", {
        type: "radio", name: group, value, onchange: changed,
      }));
      return {
        element: h("fieldset", { class: "choices" }, h("legend", { class: "unseen" }, "Your answer"),
          ...question.choices.map(({ text }, k) =>
            h("label", {}, radios[k], h("span", {}, ...markedUp(text))))),
        read: () => radios.find((one) => one.checked)?.value ?? null,
        write: (value) => radios.forEach((one) => {
          one.checked = value !== null && Number(one.value) === Number(value);
        }),
        missing: "Choose one of the answers first.",
      };
    },
    theta() {
      const picture = pictures[question.picture];
      const { width, height } = picture;
      const warped = (theta) => {
        const canvas = h("canvas", { width, height });
        const context = canvas.getContext("2d");
        const image = context.createImageData(width, height);
        warpInto(image.data, picture, theta);
        context.putImageData(image, 0, 0);
        return canvas;
      };
      const goal = warped(question.answer);
      let theta = identity();
      let own = warped(theta);
      const view = () => ({ x: 0, y: 0, reach: 1.08 });
      const planes = [["Yours", () => own], ["Wanted", () => goal]].map(([name, canvas]) =>
        [name, plane(name, (context, self) => {
          frame(context, palette(root).output, drawPicture(context, self, canvas(), 1, 1));
        }, view())]);
      const draw = frames(() => {
        own = warped(theta);
        planes.forEach(([, one]) => one.draw());
      });
      onTheme(draw);
      const fields = matrix(theta, {
        name: "θ", heads: ["x", "y", "1"], sides: ["x′", "y′"],
        onedit(next) {
          theta = next;
          draw();
          changed();
        },
      });
      draw();
      return {
        element: h("div", {}, h("div", { class: "goals" }, ...planes.map(([name, one]) =>
          h("figure", { class: "output" }, h("figcaption", {}, h("b", {}, name)), one.element))),
        fields.element),
        read: () => theta,
        write(value) {
          theta = value ?? identity();
          fields.update(theta, true);
          draw();
        },
        stop: () => planes.forEach(([, one]) => one.stop()),
      };
    },
  };
  const part = parts[question.kind]();

  const tell = (state, mark, say) => {
    feedback.dataset.state = state;
    feedback.replaceChildren(h("b", {}, mark), " ", ...markedUp(say));
  };
  function changed() {
    delete feedback.dataset.state;
    feedback.replaceChildren();
  }
  function check() {
    const read = part.read();
    if (read === null) {
      tell("missing", "Not yet.", part.missing);
      return;
    }
    const answer = question.kind === "choice" ? Number(read) : read;
    const { right, say } = judge(question, answer);
    save(model, { answer });
    tell(right ? "right" : "wrong", right ? "✓ Right." : "✗ Not quite.", say);
    solve.hidden = right;
    again.hidden = false;
    memory.write(key, right ? answer : null);
  }
  function show() {
    part.write(question.kind === "choice" ? question.choices.findIndex(({ right }) => right)
      : question.answer);
    check();
  }
  function reset() {
    part.write(null);
    changed();
    [solve.hidden, again.hidden] = [true, true];
    memory.write(key, null);
  }
  const solve = h("button", { type: "button", class: "chip quiet", hidden: true, onclick: show },
    "Show the answer");
  const again = h("button", { type: "button", class: "chip quiet", hidden: true, onclick: reset },
    "Start again");
  root.append(h("form", {
    class: "question",
    onsubmit(event) {
      event.preventDefault();
      check();
    },
  },
  h("p", { class: "ask" }, h("b", {}, "Question. "), ...markedUp(question.ask)),
  part.element,
  h("div", { class: "bar" }, h("button", { type: "submit", class: "chip" }, "Check"), solve, again),
  feedback));
  const before = memory.read(key);
  if (before !== null && judge(question, before).right) {
    part.write(before);
    check();
  }
  return part.stop;
});
