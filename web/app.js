// The page: files in, drawing and table out.
//
// ?model=NAME and ?photo=NAME are files beside the page; without, model.tflite is taken if it is
// there. What is found, and the state of the work, are in `page`, for tests and the console.

import { load } from "./network.js";
import { fit, toPicture } from "./picture.js";

const SUGGESTED = "model.tflite";
const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00"]; // those of detect.py
const LONG_EDGE = [800, 2048]; // of the drawing, in pixels: smaller photos are enlarged

const NAMED = 10; // categories at most

export const page = { busy: true, error: null, found: null, milliseconds: null };

const element = (id) => document.getElementById(id);
let network = null;
let photo = null; // { height, width, rgba, bitmap, name }
let queue = Promise.resolve();

// Tasks run one after the other; what one of them throws is shown, and what was there stays.
function enqueue(task) {
  page.busy = true;
  const job = queue.then(task).catch(fail);
  queue = job;
  job.then(() => {
    if (queue === job) page.busy = false;
  });
}

function say(text) {
  page.error = null;
  element("status").className = "";
  element("status").textContent = text;
  return new Promise((resolve) => setTimeout(resolve, 30)); // the browser draws in between
}

function fail(error) {
  page.error = error.message;
  element("status").className = "error";
  element("status").textContent = error.message;
}

async function openNetwork(bytes, name) {
  await say(`Loading ${name} …`);
  const loaded = await load(bytes, name);
  network?.close();
  network = loaded;
  const { categories, suggested_score_threshold: threshold } = network.description;
  const [height, width] = network.inputHW;
  const names = categories.slice(0, NAMED).map((row) => row.name);
  if (categories.length > NAMED) names.push(`${categories.length - NAMED} others`);
  element("network").textContent =
    `${name}: ${(bytes.length / 1e6).toFixed(1)} MB, input ${height} x ${width}, ` +
    `finds ${names.join(", ")}`;
  element("threshold").value = threshold ?? 0.5;
  show();
  await detect();
}

async function openPhoto(blob, name) {
  await say(`Reading ${name} …`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read.`);
  }
  const { height, width } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  let rgba;
  try {
    rgba = context.getImageData(0, 0, width, height).data;
  } catch {
    throw new Error(`${name}, ${width} x ${height}, is too large for this browser.`);
  }
  photo?.bitmap.close();
  photo = { height, width, rgba, bitmap, name };
  page.found = null;
  show();
  await detect();
}

async function detect() {
  if (!network) return say("Now choose a network: a .tflite file of --format=litert.");
  if (!photo) return say("Now choose a photo.");
  await say(`Looking at ${photo.name} …`);
  const times = [performance.now()];
  const { image, sizeHW } = fit(photo, network.inputHW, network.description.resize);
  times.push(performance.now());
  const outputs = await network.run(image, sizeHW);
  times.push(performance.now());
  page.found = toPicture(outputs, sizeHW, photo, network.description);
  times.push(performance.now());
  const [resizing, running, pasting] = [0, 1, 2].map((i) => times[i + 1] - times[i]);
  page.milliseconds = { resizing, running, pasting };
  show();
  return undefined;
}

// Return what has at least the score of the slider, each with its colour.
function shown() {
  const threshold = Number(element("threshold").value);
  return (page.found ?? [])
    .map((one, number) => ({ ...one, color: COLORS[number % COLORS.length] }))
    .filter((one) => one.score >= threshold);
}

// Draw it, list it, and say how many and how long it took.
function show() {
  element("shown-threshold").textContent = Number(element("threshold").value).toFixed(2);
  draw();
  list();
  if (page.found) {
    const { resizing, running, pasting } = page.milliseconds;
    say(
      `${photo.name}, ${photo.width} x ${photo.height}: ${shown().length} of ${page.found.length} ` +
        `objects shown; network ${running.toFixed(0)} ms, resizing ${resizing.toFixed(0)} ms, ` +
        `masks ${pasting.toFixed(0)} ms`,
    );
  }
}

function draw() {
  if (!photo) return;
  const ones = shown();
  const canvas = element("drawing");
  const long = Math.max(photo.height, photo.width);
  const zoom = Math.min(Math.max(long, LONG_EDGE[0]), LONG_EDGE[1]) / long;
  canvas.width = Math.max(Math.round(photo.width * zoom), 1);
  canvas.height = Math.max(Math.round(photo.height * zoom), 1);
  canvas.hidden = false;
  const pen = canvas.getContext("2d");
  pen.scale(canvas.width / photo.width, canvas.height / photo.height);
  pen.drawImage(photo.bitmap, 0, 0);
  pen.imageSmoothingEnabled = false; // a mask's pixels are the photo's
  for (const { mask, color } of ones.toReversed()) {
    if (mask?.bits.length) pen.drawImage(tinted(mask, color), mask.left, mask.top);
  }
  const unit = photo.width / (canvas.clientWidth || canvas.width); // photo pixels in one of CSS
  pen.lineWidth = 2 * unit;
  pen.font = `${14 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "bottom";
  for (const { box, score, category, color } of ones.toReversed()) {
    const [y1, x1, y2, x2] = box;
    pen.strokeStyle = color;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${category} ${score.toFixed(2)}`;
    const width = pen.measureText(text).width + 8 * unit;
    const left = Math.max(Math.min(x1 - unit, photo.width - width), 0);
    const bottom = Math.max(y1 + unit, 20 * unit);
    pen.fillStyle = color;
    pen.fillRect(left, bottom - 20 * unit, width, 20 * unit);
    pen.fillStyle = "#000";
    pen.fillText(text, left + 4 * unit, bottom - 2 * unit);
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${photo.name} with ${ones.length} objects`);
}

// Return a canvas of a mask's size, half covered with the colour where the object is.
function tinted({ bits, height, width }, color) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  const layer = pen.createImageData(width, height);
  const rgb = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
  bits.forEach((bit, pixel) => {
    if (bit) layer.data.set([...rgb, 128], 4 * pixel);
  });
  pen.putImageData(layer, 0, 0);
  return canvas;
}

function list() {
  const rows = shown().map(({ category, score, mask, color }) => {
    const row = document.createElement("tr");
    const pixels = mask ? mask.bits.reduce((sum, bit) => sum + bit, 0) : "";
    for (const text of [category, score.toFixed(2), pixels]) row.insertCell().textContent = text;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = color;
    row.cells[0].prepend(swatch);
    return row;
  });
  element("found").tBodies[0].replaceChildren(...rows);
  element("found").hidden = !rows.length;
}

function openNetworkFile(file) {
  enqueue(async () => openNetwork(new Uint8Array(await file.arrayBuffer()), file.name));
}

function openPhotoFile(file) {
  enqueue(() => openPhoto(file, file.name));
}

// Return a file beside the page as a Blob; null if it is not there and need not be.
async function beside(name, needed) {
  const answer = await fetch(name, { cache: "no-cache" }).catch(() => null); // it may be newer
  if (answer?.ok) return answer.blob();
  if (needed) throw new Error(`${name} is not beside this page.`);
  return null;
}

function begin() {
  const asked = new URLSearchParams(location.search);
  enqueue(async () => {
    const name = asked.get("model") ?? SUGGESTED;
    await say(`Fetching ${name} …`);
    const blob = await beside(name, asked.has("model"));
    if (blob) await openNetwork(new Uint8Array(await blob.arrayBuffer()), name);
    else await detect();
  });
  if (asked.has("photo")) {
    const name = asked.get("photo");
    enqueue(async () => openPhoto(await beside(name, true), name));
  }
  for (const [id, open] of [["model", openNetworkFile], ["photo", openPhotoFile]]) {
    element(id).addEventListener("change", ({ target }) => {
      [...target.files].forEach(open);
      target.value = ""; // so that the same file can be chosen again
    });
  }
  element("threshold").addEventListener("input", show);
  addEventListener("resize", draw);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    for (const file of event.dataTransfer.files) {
      (/\.(tflite|onnx)$/i.test(file.name) ? openNetworkFile : openPhotoFile)(file);
    }
  });
}

begin();
