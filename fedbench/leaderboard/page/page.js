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
  const [panels, priced] = [dosePanels(), chosenPrices()];
  document.getElementById("status").textContent = `${shown(attacks, rows("attacks"), "attack")}, ${shown(defenses, rows("defenses"), "defense")}`;
  const openAttack = (row) => show(address("attack", named(row.attack)));
  const openDefense = (row) => show(address("defense", row.defense));
  const openCell = (row) => show(address("cell", row.attack, row.dataset, row.model, row.malicious_ratio, ...(track === TRACKS.visual ? [row.eps] : [])));
  const caption = (key) => board.captions[track.prefix + key] && el("p", { class: "hint" }, board.captions[track.prefix + key]);
  const within = Object.entries(board?.[`${track.prefix}attacks_within`] ?? {}).map(([eps, own]) => [eps, own.filter(allowed)]);
  const pictures = panels.length > 0 && section("doses", "How many malicious clients does an attack need to reach half of the users?", doses(panels));
  const first = [
    panels.length > 0 && section("dose-rows", "Attacks by half-exposure dose", [doseTable(panels), board?.captions.doses && el("p", { class: "hint" }, board.captions.doses)]),
    attacks.length > 0 && section("attacks", words.attacks, [table({ id: "attack-table", caption: words.attacks, columns: attackColumns(track, state.k, h), rows: attacks, open: openAttack }), caption("attacks")]),
  ];
  const sections = [
    // A phone shows the first rows before the pictures.
    ...(narrow() ? [first[0] || first[1], pictures, first[0] && first[1]] : [pictures, ...(panels.length ? [] : first.slice(1))]),
    priced.length > 0 && section("prices", "What does a defense make of the price, and what does it cost?", prices(priced, (row) => show(address("price", panelName(row), row.defense)))),
    ...(narrow() ? [] : panels.length ? first : []),
    ...within.map(([eps, own]) => own.length > 0 && section(`attacks-${eps}`, `Attacks within eps ${eps}`, [table({ id: `attack-table-${eps}`, caption: `Attacks within eps ${eps}`, columns: attackColumns(track, state.k, h), rows: own, open: (row) => show(address("within", eps, row.attack)) }), caption(`attacks_within ${eps}`)])),
    defenses.length > 0 && section("pareto", "What defenses prevent against what they cost", pareto(track, board, words, plotWidth(), openDefense)),
    defenses.length > 0 && section("defenses", words.defenses, [table({ id: "defense-table", caption: words.defenses, columns: defenseColumns(track, words), rows: defenses, open: openDefense }), caption("defenses")]),
    section("heatmap", words.heat, board && heat(track, board, words.heat, { attack: openAttack, pair: (row, defense) => show(address("pair", row.attack, defense)) })),
    cells.length > 0 && section("cells", words.cells, table({ id: "cell-table", caption: words.cells, few: 12, columns: cellColumns(track, state.k, h), rows: cells, open: openCell })),
  ].filter(Boolean);
  if (!sections.length) {
    root.replaceChildren(el("div", { class: "empty" }, el("p", {}, "Nothing to show here: no runs of this track fit the filters."), el("button", { type: "button", onclick: reset }, "Show everything")));
    return;
  }
  if (board) sections.push(notes(board));
  root.replaceChildren(...sections);
}

// A part of the page; nothing where there is nothing to show.
function section(id, title, content) {
  return content && el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title`, tabindex: "-1" }, title), content);
}

function narrow() {
  return innerWidth <= 640;
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

function plotWidth() {
  return Math.max(300, Math.min(800, root.clientWidth > 900 ? root.clientWidth - 300 : root.clientWidth));
}

function renderControls() {
  const all = { dataset: "All datasets", model: "All models" };
  for (const name of FILTERS) {
    const options = ["", ...DATA.options[name]].map((value) => {
      const wanted = { ...state, [name]: value };
      const board = boardOf(wanted, state.k);
      const there = ["attacks", "defenses"].some((kind) => board?.[TRACKS[state.track].prefix + kind]?.length)
        || (state.track === "targeted" && DATA.doses?.panels.some((each) => FILTERS.every((other) => wanted[other] === "" || each[other] === wanted[other])));
      return el("option", { value, selected: value === state[name], disabled: value !== "" && value !== state[name] && !there }, value || all[name]);
    });
    controls.elements[name].replaceChildren(...options);
  }
  controls.elements.k.replaceChildren(...DATA.options.k.map((k) => el("option", { value: k, selected: k === state.k, disabled: k !== state.k && !boardOf(state, k) }, `K = ${k}`)));
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
  change({ dataset: "", model: "", k: DATA.start.k, hide: [], compare: null, all: [], sort: {} });
}

function start() {
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
  document.getElementById("link").addEventListener("click", () => copy(location.href, "the link to this view"));
  for (const basis of document.querySelectorAll("[data-finding]")) {
    const place = basis.dataset.finding;
    if (basis.closest("#more")) basis.textContent = "";
    const runs = DATA.lists[DATA.findings[place].runs].length;
    basis.append(" ", el("button", { type: "button", class: "runs", "aria-haspopup": "dialog", onclick: () => show(address("finding", place)) }, plural(runs, "run")));
  }
  // The numbers and tests of all but the first are where their runs are.
  for (const each of document.querySelectorAll("#more .detail")) each.remove();
  if (narrow()) document.getElementById("more")?.removeAttribute("open");
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
