// What every explorable shares: mounting in a kernel and in a page, the theme, the parts that a
// reader touches. An explorable is one file that calls `explorable(kind, build)`; `build` is given
// {model, root, pictures, announce, onTheme} and may return a function that cleans up. `model` is
// the kernel's, or one made of the page's own state: the same `get`, `set`, `on` either way.

// --- Mounting ---

const kinds = {};

export const explorable = (kind, build) => { kinds[kind] = build; };

export async function mount(kind, model, host) {
  // JupyterLab sees keys from a shadow root as if they came from the host: unless it is told, D D
  // would delete the cell under the reader's hands.
  host.dataset.lmSuppressShortcuts = "true";
  const pictures = await loadPictures(model.get("_pictures") ?? {});
  // A shadow root keeps the page's styles out, and takes the place of the picture that stands here:
  // now, that there is something to show instead.
  const shadow = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const root = h("div", { class: "root", lang: "en" });
  for (const type of ["keydown", "keyup", "keypress"]) {
    // The book turns its pages with the arrow keys; these are ours.
    root.addEventListener(type, (event) => {
      if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") event.stopPropagation();
    });
  }
  const onTheme = watchTheme(root);
  const [announce, region] = announcer();
  shadow.replaceChildren(h("style", { textContent: CSS }), root);
  const clean = kinds[kind]({ model, root, pictures, announce, onTheme });
  root.append(region);
  host.dataset.stnReady = "";
  return () => {
    clean?.();
    onTheme.stop();
  };
}

// In a static page: every element that names this kind becomes one. `shared` is what all of them
// know beside their own state.
export function mountPage(kind, pictures, shared = {}) {
  for (const host of document.querySelectorAll("[data-stn-widget]")) {
    const state = JSON.parse(host.dataset.stnWidget);
    if (state.kind === kind && !host.shadowRoot) {
      const own = { ...pictures, ...state._pictures };
      mount(kind, pageModel({ ...shared, ...state, _pictures: own }), host);
    }
  }
}

// What an explorable needs of a kernel's model, without a kernel.
export function pageModel(state) {
  const listeners = {};
  return {
    get: (key) => state[key],
    set(key, value) {
      state[key] = value;
      (listeners[`change:${key}`] ?? []).forEach((listener) => listener());
    },
    save_changes() {},
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off(event, listener) {
      listeners[event] = (listeners[event] ?? []).filter((one) => one !== listener);
    },
  };
}

// Listens to the model until the function that it returns is called.
export function follow(model, listeners) {
  const each = (act) => Object.entries(listeners).forEach(([key, listener]) =>
    model[act](`change:${key}`, listener));
  each("on");
  return () => each("off");
}

// Tells the model, and so the kernel, what the reader did.
export function save(model, values) {
  for (const [key, value] of Object.entries(values)) model.set(key, value);
  model.save_changes();
}

// --- Elements ---

export function h(tag, properties = {}, ...children) {
  const element = tag === "svg" || tag === "path"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.includes("-") && !(element instanceof SVGElement)) {
      element[key] = value;
    } else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// In every frame much is said again that has not changed: written anew, it would cost a new layout.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

// "−0.50": a true minus, so that columns of numbers stand still.
export function number(value, places = 2) {
  const text = Math.abs(value) >= 1e6 ? value.toExponential(places) : value.toFixed(places);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// --- Theme ---

// The book says it on <html>, JupyterLab on <body>, Colab on <html>, VS Code by a class; elsewhere
// the system's own choice holds.
function isDark() {
  const { documentElement: html, body } = document;
  const said = html.dataset.theme ?? html.getAttribute("theme");
  if (said === "dark" || said === "light") return said === "dark";
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.className.includes("vscode-")) return !body.classList.contains("vscode-light");
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function watchTheme(root) {
  const listeners = [];
  const update = () => {
    root.dataset.theme = isDark() ? "dark" : "light";
    listeners.forEach((listener) => listener());
  };
  const observer = new MutationObserver(update);
  observer.observe(document.documentElement, { attributes: true });
  observer.observe(document.body, { attributes: true });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", update);
  update();
  const onTheme = (listener) => listeners.push(listener);
  onTheme.stop = () => {
    observer.disconnect();
    system.removeEventListener("change", update);
  };
  return onTheme;
}

// The book's colours as the style sheet has them for this theme: for canvases.
export function palette(root) {
  const style = getComputedStyle(root);
  const names = [
    "input", "output", "grid", "theta", "error", "text", "muted", "line", "surface", "halo",
  ];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
export const stillness = () => still.matches;

// --- Words for those who cannot see the picture ---

// Speaks once the reader has paused, and only if there is something new to say.
function announcer() {
  const region = h("div", { class: "unseen", "aria-live": "polite", role: "status" });
  let timer;
  const announce = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (region.textContent !== text) region.textContent = text;
    }, 700);
  };
  return [announce, region];
}

// --- Pictures ---

// {name: {label, src}} becomes {name: {label, src, width, height, channels, data, canvas}}; what is
// loaded already is kept.
export async function loadPictures(sources, loaded = {}) {
  const entries = Object.entries(sources).map(async ([name, { label, src }]) => {
    if (loaded[name]?.src === src) return [name, loaded[name]];
    const image = new Image();
    image.src = src;
    await image.decode();
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const canvas = h("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data;
    let grey = true;
    for (let k = 0; k < rgba.length; k += 4) {
      grey &&= rgba[k] === rgba[k + 1] && rgba[k] === rgba[k + 2];
    }
    const channels = grey ? 1 : 3;
    const data = new Uint8Array(width * height * channels);
    for (let k = 0; k < width * height; k++) {
      for (let c = 0; c < channels; c++) data[k * channels + c] = rgba[4 * k + c];
    }
    return [name, { label, src, width, height, channels, data, canvas }];
  });
  return Object.fromEntries(await Promise.all(entries));
}

// Thumbnails to choose from; `update(pictures, chosen)` follows the kernel.
export function pictureChoice(onpick) {
  const element = h("fieldset", { class: "pictures" });
  // Radio buttons need a name of their own for each explorable on the page.
  const group = `stn${Math.random()}`;
  let shown = "";
  const update = (pictures, chosen) => {
    const sources = Object.values(pictures).map(({ src }) => src).join();
    if (sources !== shown) {
      shown = sources;
      element.replaceChildren(h("legend", { class: "unseen" }, "Picture"),
        ...Object.entries(pictures).map(([value, { label, src }]) =>
          h("label", { title: label },
            h("input", {
              type: "radio", name: group, value, "aria-label": label,
              onchange: () => onpick(value),
            }),
            h("img", { src, alt: "", draggable: false }))));
    }
    for (const radio of element.querySelectorAll("input")) radio.checked = radio.value === chosen;
  };
  return { element, update };
}

// Chips of which one is pressed: {value: label}.
export function options(legend, labels, onpick) {
  const chips = Object.entries(labels).map(([value, label]) =>
    h("button", { type: "button", class: "chip", value, onclick: () => onpick(value) }, label));
  const element = h("div", { class: "options", role: "group", "aria-label": legend },
    h("span", { "aria-hidden": "true" }, legend), h("div", { class: "chips" }, ...chips));
  const update = (chosen) => chips.forEach((chip) =>
    setAttribute(chip, "aria-pressed", chip.value === String(chosen)));
  return { element, update };
}

// --- Canvases ---

// A canvas that follows its width and the screen's pixels, so many times as high as wide. `paint`
// draws in a plane whose point (x, y) `place` puts at CSS pixels; `view` says which part is seen.
export function plane(label, paint, view = { x: 0, y: 0, reach: 1.1 }, aspect = 1) {
  const canvas = h("canvas", { role: "img", "aria-label": label });
  const element = h("div", { class: "plane", style: `aspect-ratio: ${1 / aspect}` }, canvas);
  const self = {
    element,
    canvas,
    view,
    size: 0,
    get height() { return self.size * aspect; },
    get scale() { return self.size / 2 / view.reach; },
    place: (x, y) => [
      self.size / 2 + (x - view.x) * self.scale,
      self.height / 2 + (y - view.y) * self.scale,
    ],
    locate(event) {
      const box = canvas.getBoundingClientRect();
      return [
        (event.clientX - box.left - self.size / 2) / self.scale + view.x,
        (event.clientY - box.top - self.height / 2) / self.scale + view.y,
      ];
    },
    draw() {
      if (!self.size) return;
      const ratio = devicePixelRatio || 1;
      const [wide, high] = [self.size, self.height].map((side) => Math.round(side * ratio));
      if (canvas.width !== wide) [canvas.width, canvas.height] = [wide, high];
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, self.size, self.height);
      paint(context, self);
    },
  };
  const observer = new ResizeObserver(() => {
    self.size = element.clientWidth;
    self.draw();
    self.onresize?.();
  });
  observer.observe(element);
  self.stop = () => observer.disconnect();
  return self;
}

// Pixels as squares when they are large enough to be seen, a smooth picture otherwise.
export function drawPicture(context, self, canvas, halfWidth, halfHeight) {
  const [left, top] = self.place(-halfWidth, -halfHeight);
  const [right, bottom] = self.place(halfWidth, halfHeight);
  const ratio = (right - left) / canvas.width;
  context.imageSmoothingEnabled = ratio < 3;
  // Of pixels for fewer ones "high" takes the mean. For more it would take a bicubic kernel, in four
  // times the time: bilinear will do.
  context.imageSmoothingQuality = ratio * (devicePixelRatio || 1) < 1 ? "high" : "low";
  context.drawImage(canvas, left, top, right - left, bottom - top);
  return [left, top, right - left, bottom - top];
}

// A line with a wider one beneath it in the theme's own light or dark, so that it shows on any
// picture. Of a dashed line the wider one is whole, and the dashes have flat ends: with round
// ends and halos of their own the dashes took twice as long to draw.
export function stroke(context, { halo }, colour, width, points, closed = false, dashes = []) {
  context.beginPath();
  points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
  context.lineJoin = "round";
  context.lineCap = dashes.length ? "butt" : "round";
  context.strokeStyle = halo;
  context.lineWidth = width + 1.75;
  context.stroke();
  context.setLineDash(dashes);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

export function dot(context, x, y, radius, ...colours) {
  for (const colour of colours) {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    radius -= 2;
  }
}

// White on a dark rim: legible on any picture.
export function label(context, text, x, y) {
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.8)";
  context.strokeText(text, x, y);
  context.fillStyle = "#fff";
  context.fillText(text, x, y);
}

// A frame in the colour of what a plane shows.
export function frame(context, colour, [left, top, width, height]) {
  context.strokeStyle = colour;
  context.lineWidth = 3;
  context.strokeRect(left - 1.5, top - 1.5, width + 3, height + 3);
}

// One to three values up to 255, as a colour.
export const css = (values) => `rgb(${(values.length === 3 ? values : [values[0], values[0], values[0]])
  .map((value) => Math.round(value)).join(" ")})`;

// --- Dragging ---

// A button on a plane that mouse, finger and arrow keys move. `moved(x, y)` is given the plane's
// coordinates, `nudged(dx, dy)` steps of one arrow key (ten with Shift). With `jump` it comes to the
// place that is pressed; otherwise it keeps its distance from the pointer.
export function handle(self, { name, help, kind, moved, nudged, start, end, jump = false }) {
  const element = h("button", {
    type: "button", class: `handle ${kind}`, "aria-label": name, "aria-description": help,
    // A slider and not a button: then a screen reader hands it the arrow keys, and says where it is.
    role: "slider", "aria-valuemin": -20, "aria-valuemax": 20,
  });
  let grip;
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    const [x, y] = self.locate(event);
    grip = jump ? [0, 0] : [element.at[0] - x, element.at[1] - y];
    start?.();
    if (jump) moved(x, y);
  });
  element.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const [x, y] = self.locate(event);
    moved(x + grip[0], y + grip[1]);
  });
  const release = () => {
    if (grip) end?.();
    grip = null;
  };
  element.addEventListener("lostpointercapture", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("keydown", (event) => {
    const arrow = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    if (event.key === "Home" || event.key === "End") event.preventDefault();
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    nudged(...arrow.map((step) => step * (event.shiftKey ? 10 : 1)));
    end?.();
  });
  let now = "";
  element.put = (x, y, words) => {
    element.at = [x, y];
    // Out of view, it waits at the edge.
    const [left, top] = self.place(x, y).map((v, axis) =>
      Math.min(Math.max(v, 8), (axis ? self.height : self.size) - 8));
    const next = `translate(${left}px, ${top}px)`;
    // Of many, few move at a time.
    if (now === next + words) return;
    now = next + words;
    element.setAttribute("aria-valuenow", x.toFixed(2));
    element.setAttribute("aria-valuetext", words);
    element.style.transform = next;
  };
  element.at = [0, 0];
  self.element.append(element);
  return element;
}

// --- Motion ---

// Calls `paint` once before the next frame, however often it is asked.
export function frames(paint) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  };
}

// Goes from one array of numbers to another, unless the reader asked for stillness.
export function glide(step, milliseconds = 450) {
  let run = 0;
  const self = (from, to, done) => {
    const mine = ++run;
    if (stillness() || milliseconds === 0) {
      step(to);
      done?.();
      return;
    }
    const began = performance.now();
    const tick = (now) => {
      if (mine !== run) return;
      const t = Math.min(Math.max((now - began) / milliseconds, 0), 1);
      const ease = t * t * (3 - 2 * t);
      // The last step is the aim itself, free of rounding.
      step(t < 1 ? from.map((value, k) => value + ease * (to[k] - value)) : to);
      if (t < 1) requestAnimationFrame(tick);
      else done?.();
    };
    requestAnimationFrame(tick);
  };
  self.stop = () => { run++; };
  return self;
}

// How far a view reaches: in steps, or it would breathe at every move.
const REACHES = [2.1, 3.2, 4.8, 7.2, 11];

// Widens a view until these points of its plane are in it, and the picture too.
export function fitting(self, draw) {
  const first = self.view.reach;
  const glideView = glide(([x, y, reach]) => {
    Object.assign(self.view, { x, y, reach });
    draw();
  }, 350);
  let aim = [0, 0, first];
  const fit = (points) => {
    const span = [0, 1].map((axis) => {
      const all = [-1, 1, ...points.map((point) => point[axis])];
      return [Math.min(...all), Math.max(...all)];
    });
    let next = [0, 0, first];
    if (Math.max(...span.flat().map(Math.abs)) > first - 0.02) {
      const middle = span.map(([low, high]) => (low + high) / 2);
      const reach = Math.max(...span.map(([low, high]) => (high - low) / 2)) * 1.08;
      next = [...middle, [first, ...REACHES].find((step) => step >= reach) ?? REACHES.at(-1)];
    }
    if (next.every((v, k) => Math.abs(v - aim[k]) < 0.02)) return;
    aim = next;
    glideView([self.view.x, self.view.y, self.view.reach], next);
  };
  fit.stop = glideView.stop;
  return fit;
}

// A dashed arrow over a stage, from a place in one of its planes to one in another.
export function link() {
  const [halo, arrow, tip] = ["arrow halo", "arrow", "tip"].map((kind) => h("path", { class: kind }));
  const element = h("svg", { "aria-hidden": "true" }, halo, arrow, tip);
  // Where the planes stand in the stage: asked for in every frame, it would have all laid out twice.
  const corners = new Map();
  let again;
  const observer = new ResizeObserver(() => {
    corners.clear();
    again?.();
  });
  const corner = (self) => {
    if (!corners.has(self)) {
      const [box, own] = [element, self.canvas].map((one) => one.getBoundingClientRect());
      corners.set(self, [own.left - box.left, own.top - box.top]);
    }
    return corners.get(self);
  };
  const draw = (from, to) => {
    if (!again) for (const one of element.parentNode.children) observer.observe(one);
    again = () => draw(from, to);
    const on = ([self, [x, y]]) => {
      const [left, top] = corner(self);
      const place = self.place(x, y).map((v) => Math.min(Math.max(v, 0), self.size));
      return [left + place[0], top + place[1]];
    };
    const [x0, y0] = on(from);
    const [x1, y1] = on(to);
    const bend = [(x0 + x1) / 2, (y0 + y1) / 2 - Math.min(36, Math.abs(x0 - x1) / 5)];
    const angle = Math.atan2(y1 - bend[1], x1 - bend[0]);
    const back = (distance, side) => `${x1 - distance * Math.cos(angle) + side * Math.sin(angle)} ${
      y1 - distance * Math.sin(angle) - side * Math.cos(angle)}`;
    const curve = `M${x0} ${y0} Q${bend[0]} ${bend[1]} ${back(14, 0)}`;
    halo.setAttribute("d", curve);
    arrow.setAttribute("d", curve);
    tip.setAttribute("d", `M${back(6, 0)} L${back(16, 5)} L${back(16, -5)}Z`);
  };
  return { element, draw, stop: () => observer.disconnect() };
}
