"use strict";
// Everything shown was computed by fedbench's ranking functions; this script looks numbers up, sorts, filters and draws.

const DATA = JSON.parse(document.getElementById("data").textContent);

// The tracks, and the names that their fields have in the data.
const TRACKS = {
  targeted: {
    prefix: "", exposes: true, left: "er", prevented: "reduction", cost: "paid", ms: "cost", value: "er",
    words: (k, h) => ({
      attacks: `Attacks by ER@${k}, without a defense`,
      defenses: `Defenses by ER@${k} reduction minus HR@${h} loss`,
      heat: `ER@${k} that is left, attack by defense`,
      cells: `ER@${k} by dataset, model and share of malicious clients`,
      left: `ER@${k} left`, hr: `HR@${h}`, prevented: `ER@${k} reduction`, cost: `HR@${h} loss charged`, clean: `HR@${h} loss clean`, attacked: `HR@${h} loss attacked`, least: "least prevented",
      x: `HR@${h} loss, the larger of clean and attacked (points)`, y: `ER@${k} reduction (points)`,
    }),
  },
  untargeted: {
    prefix: "untargeted_", exposes: false, left: "left", prevented: "recovered", cost: "cost", ms: "round_ms", value: "loss",
    words: (k, h) => ({
      attacks: `Attacks by loss of HR@${h}, without a defense`,
      defenses: `Defenses by HR@${h} recovered minus cost`,
      heat: `HR@${h} loss that is left, attack by defense`,
      cells: `HR@${h} loss by dataset, model and share of malicious clients`,
      left: `HR@${h} loss left %`, hr: `HR@${h}`, prevented: "Recovered %", cost: "Cost %", least: "least recovered",
      x: `cost: HR@${h} lost without an attack (% of the baseline)`, y: `recovered HR@${h} (% of the baseline)`,
    }),
  },
  demotion: {
    prefix: "demotion_", exposes: true, left: "er", prevented: "reduction", cost: "paid", ms: "cost", value: "dr",
    words: (k, h) => ({
      attacks: `Attacks by DR@${k}, without a defense`,
      defenses: `Defenses by DR@${k} reduction minus HR@${h} loss`,
      heat: `DR@${k} that is left, attack by defense`,
      cells: `DR@${k} by dataset, model and share of malicious clients`,
      left: `DR@${k} left`, hr: `HR@${h}`, prevented: `DR@${k} reduction`, cost: `HR@${h} loss charged`, clean: `HR@${h} loss clean`, attacked: `HR@${h} loss attacked`, least: "least prevented",
      x: `HR@${h} loss, the larger of clean and attacked (points)`, y: `DR@${k} reduction (points)`,
    }),
  },
  visual: {
    prefix: "visual_", exposes: true, left: "er", prevented: "reduction", cost: "paid", ms: "cost", value: "er",
    words: (k, h) => ({
      attacks: `Attacks by ER@${k} at equal eps, without a defense`,
      defenses: `Defenses by ER@${k} reduction minus NDCG@20 loss %`,
      heat: `ER@${k} that is left, attack by defense`,
      cells: `ER@${k} by dataset, model, share of malicious clients and eps`,
      left: `ER@${k} left`, hr: `HR@${h}`, prevented: `ER@${k} reduction`, cost: "NDCG@20 loss charged %", clean: "NDCG@20 loss clean %", attacked: "NDCG@20 loss attacked %", least: "least prevented",
      x: "NDCG@20 lost, the larger of clean and attacked (% of the baseline)", y: `ER@${k} reduction (points)`,
    }),
  },
};
const FILTERS = ["dataset", "model", "malicious_ratio"];
const state = { track: "targeted", dataset: "", model: "", malicious_ratio: "", k: DATA.start.k, hide: [], sort: {}, open: "" };

// The view is kept in the address after "#", so that it can be linked.
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state.track = shownTracks().includes(given.get("track")) ? given.get("track") : firstTrack();
  for (const name of FILTERS) {
    const value = given.get(name) ?? "";
    state[name] = DATA.options[name].some((each) => String(each) === value) ? value : "";
  }
  const k = Number(given.get("k"));
  state.k = DATA.options.k.includes(k) ? k : DATA.start.k;
  state.hide = (given.get("hide") ?? "").split(",").filter((each) => KNOWLEDGE.includes(each));
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
  if (state.hide.length) out.set("hide", state.hide.join(","));
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
