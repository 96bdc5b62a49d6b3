"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const MANY = 20, FRAMES = 40, KEPT = 400;

/* Text goes in as text only: class names come from anybody's folders. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node[name] = value;
  node.append(...children);
  return node;
}
function say(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

/* The answer to a GET. What went wrong is thrown as a sentence for a person. */
async function ask(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 503) throw new Error("The server is busy. Try again in a moment.");
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error || `The server answered ${answer.status}.`);
}
function seedOf(id, name) {
  const text = at(id).value.trim(), seed = Number(text);
  if (text === "" || !Number.isInteger(seed) || seed < 0 || seed > 4294967295) {
    at(id).setAttribute("aria-invalid", "true");
    throw new Error(`${name} must be a whole number from 0 to 4294967295.`);
  }
  at(id).removeAttribute("aria-invalid");
  return seed;
}

/* Tabs: one is in the order of Tab, the arrow keys go to the others. */
function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")].filter((tab) => !tab.hidden);
  const choose = (tab) => {
    for (const one of all) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
      at(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
    if (tab.id === "tab-morph") show();
    else stop();
    if (tab.id === "tab-training" && !at("training").firstChild) {
      at("training").append(make("iframe", { src: "report", title: "The story of the training" }));
    }
  };
  all.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      const next = all.at(to % all.length);
      next.focus();
      choose(next);
      event.preventDefault();
    });
  });
}

/* Draw */
let drawing = null;
const boxes = () => [...at("classes").querySelectorAll("input")];

function classes() {
  at("classes-field").hidden = !data.conditional;
  if (!data.conditional) return;
  data.class_names.forEach((name, i) => {
    const box = make("input", { type: "checkbox", value: `#${i}`, checked: i < 10 }); // a name may be a number
    at("classes").append(make("label", {}, box, name));
  });
  const filter = at("class-filter");
  filter.hidden = data.class_names.length <= MANY;
  filter.addEventListener("input", () => {
    const part = filter.value.toLowerCase();
    for (const box of boxes()) box.parentNode.hidden = !box.parentNode.textContent.toLowerCase().includes(part);
  });
  const tick = (on) => boxes().filter((box) => !box.parentNode.hidden).forEach((box) => { box.checked = on; });
  at("all-classes").addEventListener("click", () => tick(true));
  at("no-classes").addEventListener("click", () => tick(false));
}

function asked() {
  const query = new URLSearchParams({ count: at("count").value, seed: seedOf("seed", "The seed"),
    truncation: at("truncation").value });
  if (data.conditional) {
    const picked = boxes().filter((box) => box.checked).map((box) => box.value);
    if (!picked.length) throw new Error("Pick at least one class.");
    if (picked.length > at("count").value) throw new Error(`${picked.length} classes need at least as many images.`);
    query.set("classes", picked.length === data.class_names.length ? "all" : picked.join(","));
  }
  return query;
}

async function draw() {
  if (drawing) drawing.abort();
  const mine = drawing = new AbortController();
  say("draw-message", "");
  try {
    const query = asked();
    at("draw-status").textContent = "Drawing …";
    at("pictures").classList.add("old");
    const told = await (await ask(`api/images?${query}`, mine.signal)).json();
    place(told.images);
    at("draw-status").textContent = `${told.images.length} images, seed ${query.get("seed")}`;
    at("png").href = `api/grid.png?${query}`;
    at("zip").href = `api/images.zip?${query}`;
    at("downloads").hidden = false;
  } catch (error) {
    if (error.name === "AbortError") return;
    at("draw-status").textContent = "";
    say("draw-message", error.message);
  }
  if (drawing === mine) at("pictures").classList.remove("old");
}

/* A row of pictures for each class, beside its name. */
function place(images) {
  const rows = new Map();
  for (const one of images) {
    if (!rows.has(one.label)) rows.set(one.label, { name: one.class, pictures: [] });
    const { pictures } = rows.get(one.label);
    const words = data.conditional ? `generated ${one.class}, number ${pictures.length + 1}` : "generated image";
    pictures.push(make("img", { src: `data:image/png;base64,${one.png}`, alt: words }));
  }
  const named = ({ name, pictures }) => make("div", { className: "row" }, make("h2", {}, name),
    make("div", {}, ...pictures));
  at("pictures").classList.toggle("bare", !data.conditional);
  at("pictures").replaceChildren(...[...rows.values()].map((row) =>
    data.conditional ? named(row) : make("div", {}, ...row.pictures)));
}

function drawControls() {
  classes();
  const some = Math.min(10, data.class_names.length);
  at("count").max = data.most_images;
  at("count").value = Math.max(16, 6 * some);
  const shown = () => {
    at("count-shown").textContent = at("count").value;
    at("truncation-shown").textContent = Number(at("truncation").value) ? at("truncation").value : "none";
  };
  shown();
  at("draw-form").addEventListener("input", shown);
  at("draw-form").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  at("another").addEventListener("click", () => {
    at("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
    draw();
  });
}

/* Morph */
const frames = new Map();
let showing = null, playing = 0, wanted = 0;

function morphControls() {
  for (const [id, chosen] of [["from-class", 0], ["to-class", Math.min(1, data.class_names.length - 1)]]) {
    at(id).append(...data.class_names.map((name, i) => make("option", { value: i, selected: i === chosen }, name)));
  }
  for (const label of document.querySelectorAll(".of-class")) label.hidden = !data.conditional;
  if (!data.conditional) at("to-seed").value = 1;
  at("share").max = FRAMES;
  at("morph-form").addEventListener("submit", (event) => event.preventDefault());
  at("morph-form").addEventListener("input", () => { stop(); show(); });
  at("share").addEventListener("input", () => { stop(); show(); });
  at("play").addEventListener("click", () => (playing ? stop() : play()));
}

function wayTo(frame) {
  const query = new URLSearchParams({ from_seed: seedOf("from-seed", "The seed to start from"),
    to_seed: seedOf("to-seed", "The seed to go to"), share: (frame / FRAMES).toFixed(4) });
  if (data.conditional) {
    query.set("from_class", `#${at("from-class").value}`);
    query.set("to_class", `#${at("to-class").value}`);
  }
  return `api/morph.png?${query}`;
}

/* A frame's picture, kept for when the slider or the animation comes by again. */
async function frameAt(address, signal) {
  if (!frames.has(address)) {
    const picture = URL.createObjectURL(await (await ask(address, signal)).blob());
    frames.set(address, picture);
    if (frames.size > KEPT) {
      const [oldest, its] = frames.entries().next().value;
      frames.delete(oldest);
      URL.revokeObjectURL(its);
    }
  }
  return frames.get(address);
}

/* While one frame is on its way, of those wished for meanwhile only the last is asked for. */
async function show() {
  wanted += 1;
  if (showing) return;
  showing = true;
  for (let done = 0; done !== wanted;) {
    done = wanted;
    await showFrame(Number(at("share").value));
  }
  showing = false;
}

async function showFrame(frame) {
  at("share-shown").textContent = `${Math.round((100 * frame) / FRAMES)} %`;
  try {
    at("between").src = await frameAt(wayTo(frame));
    const end = (id) => data.conditional ? data.class_names[at(`${id}-class`).value] : "seed " + at(`${id}-seed`).value;
    at("between").alt = `generated image, ${Math.round((100 * frame) / FRAMES)} % of the way from ${end("from")} to ${end("to")}`;
    say("morph-message", "");
    return true;
  } catch (error) {
    say("morph-message", error.message);
    return false;
  }
}

function stop() {
  playing = 0;
  at("play").textContent = "Play";
}

/* There and back until it is stopped. */
async function play() {
  const mine = playing = Date.now();
  at("play").textContent = "Stop";
  let frame = Number(at("share").value), step = frame === FRAMES ? -1 : 1;
  while (playing === mine) {
    at("share").value = frame;
    const begun = performance.now();
    if (!await showFrame(frame)) break;
    if (frame + step < 0 || frame + step > FRAMES) step = -step;
    frame += step;
    await new Promise((done) => setTimeout(done, Math.max(0, 60 - (performance.now() - begun))));
  }
  if (playing === mine) stop();
}

at("tab-training").hidden = !data.has_report;
drawControls();
morphControls();
tabs();
draw();
