// The reader's own picture: chosen, dropped or pasted. It is read in the page and goes nowhere but,
// in a notebook, to the reader's own kernel.

import { h, save } from "./ui.js";

const MOST = 40e6; // bytes: what a phone can still decode

// Reads a file as a PNG's data URI, upright as its camera says, on white where it is transparent,
// its longest side at most `largest` pixels. What cannot be read is an error for the reader's eyes.
export async function readOwn(file, largest) {
  const name = file.name || "What was pasted";
  if (file.size > MOST) {
    throw new Error(`${name} has ${Math.round(file.size / 1e6)} MB; at most ${MOST / 1e6} can be read here.`);
  }
  let whole;
  try {
    whole = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read.`);
  }
  const ratio = Math.min(1, largest / Math.max(whole.width, whole.height));
  const [width, height] = [whole.width, whole.height].map((side) => Math.max(1, Math.round(side * ratio)));
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  // A browser shrinks well by a little only: by half, and by half again, until that is left.
  let [source, w, k] = [whole, whole.width, whole.height];
  while (w > 2 * width && k > 2 * height) {
    [w, k] = [Math.ceil(w / 2), Math.ceil(k / 2)];
    const next = h("canvas", { width: w, height: k });
    const half = next.getContext("2d");
    half.imageSmoothingQuality = "high";
    half.drawImage(source, 0, 0, w, k);
    source = next;
  }
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  whole.close();
  return canvas.toDataURL("image/png");
}

// A place to choose a file from, and an explorable that takes what is dropped or pasted onto it.
export function ownPicture(model, root, announce) {
  const note = h("span", { class: "note", role: "alert" });
  const input = h("input", {
    type: "file", accept: "image/*", class: "unseen", tabIndex: -1, "aria-hidden": "true",
    onchange() {
      take(input.files);
      input.value = ""; // so that the same file can be chosen again
    },
  });
  const button = h("button", {
    type: "button", class: "chip", onclick: () => input.click(),
    title: "Or drop or paste one here. It stays in this page.",
  }, "Your own picture…");
  async function take(files) {
    const file = [...files].find(({ type }) => type.startsWith("image/")) ?? files[0];
    if (!file) return;
    try {
      const src = await readOwn(file, model.get("_largest"));
      note.textContent = "";
      const yours = { label: "Your picture", src };
      // Before the name: the picture is looked up among them.
      save(model, { _pictures: { ...model.get("_pictures"), yours }, _picture: "yours" });
      announce("Your own picture is shown.");
    } catch (error) {
      note.textContent = error.message;
    }
  }
  root.addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    root.classList.add("dropping");
  });
  root.addEventListener("dragleave", () => root.classList.remove("dropping"));
  root.addEventListener("drop", (event) => {
    root.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  root.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  return h("span", { class: "own" }, input, button, note);
}
