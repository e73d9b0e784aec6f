"use strict";
// Everything shown was computed by fedbench's ranking functions; this script looks numbers up, sorts, filters and draws.

const DATA = JSON.parse(document.getElementById("data").textContent);

// The tracks, and the names that their fields have in the data. `cost`: of K and H, what defenses are charged; `unit`: of that.
function exposing(prefix, measure, value, cost, unit, bound = "") {
  const words = (k, h) => {
    const [m, loss] = [`${measure}@${k}`, cost(h)];
    return {
      attacks: `Attacks by ${m}${bound && " at equal eps"}, without a defense`,
      defenses: `Defenses by ${m} reduction minus ${loss}`,
      heat: `${m} that is left, attack by defense`,
      cells: `${m} by dataset, model, share of malicious clients${bound}`,
      left: `${m} left`, hr: `HR@${h}`, prevented: `${m} reduction`, cost: `${loss} charged`, clean: `${loss} clean`, attacked: `${loss} attacked`,
      x: `${loss}, the larger of clean and attacked (${unit})`, y: `${m} reduction (points)`,
    };
  };
  return { prefix, exposes: true, left: "er", prevented: "reduction", cost: "paid", ms: "cost", value, words };
}
const TRACKS = {
  targeted: exposing("", "ER", "er", (h) => `HR@${h} loss`, "points"),
  untargeted: {
    prefix: "untargeted_", exposes: false, left: "left", prevented: "recovered", cost: "cost", ms: "round_ms", value: "loss",
    words: (k, h) => ({
      attacks: `Attacks by loss of HR@${h}, without a defense`,
      defenses: `Defenses by HR@${h} recovered minus cost`,
      heat: `HR@${h} loss that is left, attack by defense`,
      cells: `HR@${h} loss by dataset, model and share of malicious clients`,
      left: `HR@${h} loss left %`, hr: `HR@${h}`, prevented: "Recovered %", cost: "Cost %",
      x: `cost: HR@${h} lost without an attack (% of the baseline)`, y: `recovered HR@${h} (% of the baseline)`,
    }),
  },
  demotion: exposing("demotion_", "DR", "dr", (h) => `HR@${h} loss`, "points"),
  visual: exposing("visual_", "ER", "er", () => "NDCG@20 loss %", "% of the baseline", " and eps"),
};
const FILTERS = ["dataset", "model"];
const COLOURS = 5; // attacks that are compared at once
// `compare`: null are the first ones; `all`: tables with all columns and rows.
const state = { track: "targeted", dataset: "", model: "", k: DATA.start.k, hide: [], compare: null, all: [], sort: {}, open: "" };

// The view is kept in the address after "#", so that it can be linked.
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (given.get(name) ?? "").split(",").filter(Boolean);
  state.track = shownTracks().includes(given.get("track")) ? given.get("track") : firstTrack();
  for (const name of FILTERS) {
    const value = given.get(name) ?? "";
    state[name] = DATA.options[name].includes(value) ? value : "";
  }
  const k = Number(given.get("k"));
  state.k = DATA.boards[k]?.[0] ? k : DATA.start.k;
  state.hide = list("hide").filter((each) => KNOWLEDGE.includes(each));
  state.compare = given.has("compare") ? given.getAll("compare").filter(Boolean).slice(0, COLOURS) : null;
  state.all = list("all");
  state.sort = {};
  for (const [key, value] of given) {
    if (key.startsWith("sort.")) state.sort[key.slice(5)] = { column: value.replace(/^-/, ""), down: value.startsWith("-") };
  }
  state.open = given.get("open") ?? "";
}

function writeAddress() {
  const out = new URLSearchParams();
  if (state.track !== firstTrack()) out.set("track", state.track);
  for (const name of FILTERS) if (state[name] !== "") out.set(name, state[name]);
  if (state.k !== DATA.start.k) out.set("k", state.k);
  for (const name of ["hide", "all"]) if (state[name].length) out.set(name, state[name].join(","));
  for (const name of state.compare?.length ? state.compare : state.compare ? [""] : []) out.append("compare", name);
  for (const [table, { column, down }] of Object.entries(state.sort)) out.set(`sort.${table}`, (down ? "-" : "") + column);
  if (state.open) out.set("open", state.open);
  const text = out.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// The choice of filters that `wanted` describes, or undefined where there are no runs.
function choiceOf(wanted) {
  return DATA.choices.find(({ only }) => FILTERS.every((name) => String(only[name] ?? "") === wanted[name]));
}

function boardOf(wanted, k) {
  const choice = choiceOf(wanted);
  return choice && DATA.boards[k][choice.same];
}

function firstTrack() {
  const all = DATA.boards[DATA.start.k][0];
  if (DATA.doses) return "targeted";
  return Object.keys(TRACKS).find((name) => all?.[`${TRACKS[name].prefix}attacks`]?.length) ?? "targeted";
}

// The tracks that this page has: those of models that read images, and of attacks that demote, only where there are runs of them.
function shownTracks() {
  return Object.keys(TRACKS).filter((name) => Object.hasOwn(DATA.notes[DATA.start.k], name));
}

// What attackers and servers are said to know anywhere; rows that need something hidden are left out of tables.
const KNOWLEDGE = [...new Set(Object.values(DATA.boards[DATA.start.k]).filter(Boolean).flatMap((board) =>
  Object.values(TRACKS).flatMap(({ prefix }) => [`${prefix}attacks`, `${prefix}defenses`]).flatMap((key) => (board[key] ?? []).flatMap(knows))))].sort();

function knows(row) {
  return row.knowledge && row.knowledge !== "none" ? row.knowledge.split(", ") : [];
}

function allowed(row) {
  return !knows(row).some((each) => state.hide.includes(each));
}

// Elements: el("td", { class: "n", onclick: f }, "text", child, ...). Text is always text, never HTML.
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

// A number as text; "–" where there is none. The minus is a real one, as wide as the plus.
function num(value, { digits = 1, signed = false } = {}) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  const zero = Number(text) === 0;
  if (zero) return text.replace("-", "");
  return (signed && value > 0 ? "+" : "") + text.replace("-", "−");
}

function percent(ratio) {
  return `${Number((100 * ratio).toPrecision(6))} %`;
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}
