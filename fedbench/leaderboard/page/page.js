// The page: controls, tabs, and the sections of the chosen board.

const controls = document.getElementById("controls");
const root = document.getElementById("board");

function render() {
  renderControls();
  const track = TRACKS[state.track];
  const h = DATA.options.h[state.k];
  const words = track.words(state.k, h);
  const board = boardOf(state, state.k);
  const rows = (key) => board?.[track.prefix + key] ?? [];
  const attacks = rows("attacks").filter(allowed);
  const defenses = rows("defenses").filter(allowed);
  const cells = rows("cells").filter((cell) => attacks.some((row) => row.attack === cell.attack) || !rows("attacks").some((row) => row.attack === cell.attack));
  document.getElementById("status").textContent = board
    ? `${shown(attacks, rows("attacks"), "attack")}, ${shown(defenses, rows("defenses"), "defense")}, ${shown(cells, rows("cells"), "cell")} on ${where()}; K = ${state.k}.`
    : `No runs on ${where()}.`;
  if (!board || (!attacks.length && !defenses.length)) {
    root.replaceChildren(el("div", { class: "empty" }, el("p", {}, "Nothing to show here: no runs of this track fit the filters."), el("button", { type: "button", onclick: reset }, "Show everything")));
    return;
  }
  const openAttack = (row) => show(address("attack", named(row.attack)));
  const openDefense = (row) => show(address("defense", row.defense));
  const sections = [
    section("attacks", words.attacks, attacks.length && [
      table({ id: "attack-table", caption: words.attacks, columns: attackColumns(track, state.k, h), rows: attacks, open: openAttack }), caption(board, `${track.prefix}attacks`)]),
    ...Object.entries(board[`${track.prefix}attacks_within`] ?? {}).map(([eps, all]) => section(`within-${eps}`, `Attacks within eps ${eps}`, [
      table({ id: `attack-table-${eps}`, caption: `Attacks within eps ${eps}`, columns: attackColumns(track, state.k, h), rows: all.filter(allowed), open: (row) => show(address("within", eps, row.attack)) }), caption(board, `${track.prefix}attacks_within ${eps}`)])),
    section("defenses", words.defenses, defenses.length && [
      table({ id: "defense-table", caption: words.defenses, columns: defenseColumns(track, words), rows: defenses, open: openDefense }), caption(board, `${track.prefix}defenses`)]),
    section("pareto", "What defenses prevent against what they cost", pareto(track, board, words, plotWidth(), openDefense)),
    section("heatmap", words.heat, heat(track, board, words.heat, { attack: openAttack, pair: (row, defense) => show(address("pair", row.attack, defense)) })),
    section("cells", words.cells, cells.length && table({ id: "cell-table", caption: words.cells, columns: cellColumns(track, state.k, h), rows: cells, open: (row) => show(address("cell", row.attack, row.dataset, row.model, row.malicious_ratio, ...(track === TRACKS.visual ? [row.eps] : []))) })),
    notes(board),
  ];
  root.replaceChildren(index(sections), ...sections);
}

function section(id, title, content) {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title`, tabindex: "-1" }, title),
    content || el("p", { class: "empty" }, "No runs for this choice."));
}

// Links within the page; the address after "#" is the view's, so they are buttons.
function index(sections) {
  const names = { attacks: "Attacks", defenses: "Defenses", pareto: "Prevented and cost", heatmap: "Heat map", cells: "Every cell", notes: "How to read this" };
  return el("nav", { class: "index", "aria-label": "Sections" }, sections.map((each) => el("button", { type: "button", onclick: () => {
    each.scrollIntoView();
    each.querySelector("h2").focus({ preventScroll: true });
  } }, names[each.id] ?? each.querySelector("h2").textContent)));
}

// What the runs of a ranking can tell apart, the smallest difference that can be resolved, and the critical difference.
function caption(board, key) {
  return board.captions[key] && el("p", { class: "hint" }, board.captions[key]);
}

function notes(board) {
  const warnings = DATA.texts[board.warnings];
  return el("section", { id: "notes", "aria-labelledby": "notes-title" }, el("h2", { id: "notes-title", tabindex: "-1" }, "How to read this"),
    el("ul", {}, DATA.notes[state.k][state.track].map((text) => el("li", {}, text))),
    warnings.length > 0 && el("details", {}, el("summary", {}, `What is lacking (${warnings.length})`), el("ul", {}, warnings.map((text) => el("li", {}, text)))));
}

function shown(left, all, word) {
  return left.length === all.length ? plural(all.length, word) : `${left.length} of ${plural(all.length, word)}`;
}

function where() {
  const words = [state.dataset || "all datasets", state.model || "all models", state.malicious_ratio === "" ? "all shares of malicious clients" : `${percent(Number(state.malicious_ratio))} malicious clients`];
  return words.join(", ");
}

function plotWidth() {
  return Math.max(300, Math.min(800, root.clientWidth > 900 ? root.clientWidth - 300 : root.clientWidth));
}

function renderControls() {
  const all = { dataset: "All datasets", model: "All models", malicious_ratio: "All shares" };
  for (const name of FILTERS) {
    const options = ["", ...DATA.options[name].map(String)].map((value) => {
      const board = boardOf({ ...state, [name]: value }, state.k);
      const rows = board && ["attacks", "defenses"].flatMap((kind) => board[TRACKS[state.track].prefix + kind] ?? []);
      const text = value === "" ? all[name] : name === "malicious_ratio" ? percent(Number(value)) : value;
      return el("option", { value, selected: value === state[name], disabled: value !== "" && value !== state[name] && !rows?.length }, text);
    });
    controls.elements[name].replaceChildren(...options);
  }
  for (const input of controls.elements.k) input.checked = Number(input.value) === state.k;
  for (const box of document.querySelectorAll("#know-list input")) box.checked = !state.hide.includes(box.value);
  document.getElementById("know-state").textContent = state.hide.length ? `without ${state.hide.join(", ")}` : "any";
  for (const name of Object.keys(TRACKS)) {
    const on = name === state.track;
    const tab = document.getElementById(`tab-${name}`);
    tab.hidden = !shownTracks().includes(name);
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
  }
  root.setAttribute("aria-labelledby", `tab-${state.track}`);
}

function change(values) {
  Object.assign(state, values, { open: "" });
  writeAddress();
  render();
}

function reset() {
  change({ dataset: "", model: "", malicious_ratio: "", k: DATA.start.k, hide: [], sort: {} });
}

function start() {
  document.getElementById("lengths").append(...DATA.options.k.map((k) => el("label", {}, el("input", { type: "radio", name: "k", value: k }), el("span", {}, String(k)))));
  document.getElementById("know-list").append(el("p", { class: "hint" }, "Leave out entries that need:"), ...KNOWLEDGE.map((name) =>
    el("label", {}, el("input", { type: "checkbox", name: "know", value: name }), ` ${name.replaceAll("_", " ")}`)));
  document.getElementById("know").hidden = !KNOWLEDGE.length;
  const { versions, schemas, suites, diverged, failed } = DATA.about;
  document.getElementById("made-of").textContent = `Records: fedbench ${versions.join(", ")}, schema ${schemas.join(", ")}; suites ${(suites ?? []).join(", ") || "none"}; ${diverged} diverged, ${failed} failed.`;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", ({ target }) => {
    if (target.name === "k") change({ k: Number(target.value) });
    else if (target.name === "know") change({ hide: KNOWLEDGE.filter((name) => !document.querySelector(`#know-list input[value="${CSS.escape(name)}"]`).checked) });
    else change({ [target.name]: target.value });
  });
  document.getElementById("reset").addEventListener("click", reset);
  const tabs = shownTracks().map((name) => [name, document.getElementById(`tab-${name}`)]);
  tabs.forEach(([name, tab], at) => {
    tab.addEventListener("click", () => change({ track: name, sort: {} }));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const [other, button] = tabs[(at + (event.key === "ArrowLeft" ? tabs.length - 1 : 1)) % tabs.length];
      change({ track: other, sort: {} });
      button.focus();
    });
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
    document.getElementById("main").scrollIntoView();
  });
  const themes = ["system", "light", "dark"];
  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % themes.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  });
  addEventListener("hashchange", () => { readAddress(); render(); follow(); });
  let drawn = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== drawn) { drawn = innerWidth; render(); } });
  readAddress();
  render();
  follow();
}

// Opens, or closes, the panel that the address names.
function follow() {
  if (state.open) show(state.open);
  else if (panel.open) panel.close();
}

start();
