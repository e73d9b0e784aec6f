// The panel with what is behind a number: curves, the card of the entry, and the records of its runs.

const panel = document.getElementById("details");
const SHOWN = 8; // charts at first

// What `open` in the address names: "attack:NAME", "defense:NAME", "pair:ATTACK|DEFENSE", "cell:ATTACK|DATASET|MODEL|RATIO", "run:ID",
// "dose:BOARD|ATTACK" and of one point "|RATIO", "price:BOARD|DEFENSE", "finding:PLACE".
function address(kind, ...parts) {
  return `${kind}:${parts.map((part) => encodeURIComponent(part)).join("|")}`;
}

function show(where) {
  state.open = where;
  const found = resolve(where);
  if (!found) {
    state.open = "";
    writeAddress();
    if (panel.open) panel.close();
    return;
  }
  writeAddress();
  panel.replaceChildren(
    el("header", {}, el("div", {}, el("p", { class: "kind" }, found.kind), el("h2", { id: "details-title", tabindex: "-1" }, found.title)),
      el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => panel.close() }, "×")),
    el("div", { class: "inside" }, found.content));
  if (!panel.open) panel.showModal();
  panel.querySelector("#details-title").focus();
}

panel.addEventListener("close", () => {
  state.open = "";
  writeAddress();
});
panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });

function resolve(where) {
  const cut = where.indexOf(":");
  const parts = where.slice(cut + 1).split("|").map(decoded);
  const track = TRACKS[state.track];
  const board = boardOf(state, state.k);
  const rows = (key) => board?.[track.prefix + key] ?? [];
  switch (where.slice(0, cut)) {
    case "attack": {
      const row = rows("attacks").find((each) => each.attack === parts[0]);
      return row && entry("attack", row, row.attack, attackColumns(track, state.k, DATA.options.h[state.k]));
    }
    case "defense": {
      const row = rows("defenses").find((each) => each.defense === parts[0]);
      return row && entry("defense", row, row.defense, defenseColumns(track, track.words(state.k, DATA.options.h[state.k])));
    }
    case "pair": {
      const under = rows("attacks_under_defenses").find((each) => each.attack === parts[0])?.under ?? {};
      return Object.hasOwn(under, parts[1]) ? pair(track, parts, under[parts[1]]) : undefined;
    }
    case "within": {
      const row = (board?.[`${track.prefix}attacks_within`]?.[parts[0]] ?? []).find((each) => each.attack === parts[1]);
      return row && entry("attack", row, `${row.attack} within eps ${parts[0]}`, attackColumns(track, state.k, DATA.options.h[state.k]));
    }
    case "cell": {
      const row = rows("cells").find((each) => each.attack === parts[0] && each.dataset === parts[1] && each.model === parts[2] && String(each.malicious_ratio) === parts[3] && String(each.eps ?? null) === (parts[4] ?? "null"));
      return row && {
        kind: "Attack without a defense", title: `${row.attack} on ${row.dataset}, ${row.model}, ${percent(row.malicious_ratio)}`,
        content: [numbers(cellColumns(track, state.k, DATA.options.h[state.k]), row), source({ dataset: row.dataset, model: row.model, malicious_ratio: row.malicious_ratio }), curves(DATA.lists[row.runs]), card("attack", row.attack), runTable(DATA.lists[row.runs])],
      };
    }
    case "run": {
      const place = RUNS.get(parts[0]);
      return place === undefined ? undefined : runRecord(place);
    }
    case "dose": return doseDetails(parts);
    case "price": return priceDetails(parts);
    case "finding": {
      const found = DATA.findings[Number(parts[0])];
      return found && {
        kind: "Finding", title: signs(found.text),
        content: [found.detail && el("p", {}, signs(found.detail)), el("p", { class: "hint" }, found.basis), found.counter && el("p", {}, `But ${signs(found.counter)}`), source({}), runTable(DATA.lists[found.runs])],
      };
    }
    default: return undefined;
  }
}

// The command that prints the tables which a number is from.
function source(only) {
  const words = Object.entries(only).filter(([, value]) => value !== "" && value !== undefined && value !== null).map(([name, value]) => `--only=${quoted(`${name}=${value}`)}`);
  return command([DATA.about.command.replace(/ --html=DIR$/, "").replace(/ --k=\d+/, ""), ...words, ...(state.k === 10 ? [] : [`--k=${state.k}`])].join(" "));
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function entry(kind, row, name, columns) {
  const runs = DATA.lists[row.runs];
  return {
    kind: kind === "attack" ? "Attack" : "Defense", title: name,
    content: [numbers(columns, row), separation(row), lacks(row), source({ dataset: state.dataset, model: state.model }), curves(runs), card(kind, name), runTable(runs)],
  };
}

function pair(track, [attack, defense], [left, cost, net, list, hr]) {
  const words = track.words(state.k, DATA.options.h[state.k]);
  const columns = [
    { key: "left", label: words.left, kind: "estimate", within: track.exposes ? SHARE : LOST, of: () => left },
    { key: "hr", label: words.hr, kind: "number", digits: track.exposes ? 1 : 2, of: () => hr },
    { key: "cost", label: words.cost, kind: "number", signed: true, of: () => cost },
    { key: "net", label: "Net", kind: "number", signed: true, of: () => net },
  ];
  const runs = DATA.lists[list];
  return { kind: "Attack under a defense", title: `${attack} under ${defense}`, content: [numbers(columns, {}), source({ dataset: state.dataset, model: state.model }), curves(runs), card("attack", named(attack)), card("defense", defense), runTable(runs)] };
}

// The numbers of a row, in words and full length.
function numbers(columns, row) {
  return el("dl", { class: "numbers" }, columns.filter((column) => column.kind !== "name").map((column) => el("div", {},
    el("dt", { title: column.help }, column.label),
    el("dd", {}, content(column, row, { [column.key]: domainOf([column.of(row)].filter(Array.isArray), column) })))));
}

// What the paired tests say.
function separation(row) {
  if (row.rank === null) return undefined;
  const above = DATA.texts[row.above];
  return el("section", {}, el("h3", {}, "What the runs can tell"), el("p", {}, above.length
    ? `Significantly better than ${above.join("; ")}.`
    : "Significantly better than none of the others."), el("p", { class: "hint" }, "Paired by scenario and seed, Holm's correction over all pairs of the table, 5 %."));
}

function lacks(row) {
  const missing = DATA.texts[row.missing];
  if (!missing.length && !row.apart && !row.lacking.length) return undefined;
  return el("section", { class: "lacks" }, el("h3", {}, "What is lacking"),
    missing.length > 0 && el("details", {}, el("summary", {}, `${plural(missing.length, "scenario")} of the comparison missing: no rank`), el("ul", {}, missing.map((text) => el("li", {}, text)))),
    row.lacking.length > 0 && el("p", {}, `It lacks seeds that at least half of the entries ran there: ${row.lacking.join("; ")}.`),
    row.apart > 0 && el("p", {}, `It ran ${plural(row.apart, "scenario")} more, which fewer than half of the entries ran: not compared.`));
}

// One small picture for each scenario of the runs.
function curves(runs) {
  const places = [...new Set(runs.map((run) => DATA.runs.scenario[run]))];
  const k = DATA.start.k;
  const h = DATA.options.h[k];
  const targeted = TRACKS[state.track].exposes;
  const defended = places.some((place) => DATA.scenarios[place].defense !== "none");
  const draw = (place) => {
    const scenario = DATA.scenarios[place];
    const curve = DATA.curves[place];
    const twin = SCENARIOS.get(scenario.undefended_id);
    const clean = SCENARIOS.get(scenario.clean_id);
    const lines = [];
    if (targeted && twin !== undefined && twin !== place) lines.push({ curve: DATA.curves[twin], metric: "er", kind: "twin" });
    if (!targeted && clean !== undefined && clean !== place) lines.push({ curve: DATA.curves[clean], metric: "hr", kind: "twin" });
    lines.push({ curve, metric: "hr", kind: "hr" });
    if (targeted) lines.push({ curve, metric: "er", kind: "er" });
    const words = [scenario.dataset, scenario.model, percent(scenario.malicious_ratio), ...(scenario.target === "none" ? [] : [scenario.target]), ...bound(scenario)].join(" · ");
    const versus = scenario.defense === "none" ? scenario.attack : `${scenario.attack} under ${scenario.defense}`;
    return el("figure", {}, chart(lines, `${versus} on ${words}: curves over training`, targeted),
      el("figcaption", {}, defended && el("b", {}, versus), words, el("span", {}, curve ? ` · ${plural(curve.seeds, "seed")}` : "")));
  };
  const grid = el("div", { class: "charts" }, places.slice(0, SHOWN).map(draw));
  const more = places.length > SHOWN && el("button", { type: "button", onclick: (event) => { grid.append(...places.slice(SHOWN).map(draw)); event.target.remove(); } }, `Show all ${places.length}`);
  return el("section", {}, el("h3", {}, "Over training"),
    el("p", { class: "keys" }, targeted && el("span", { class: "key er" }, `ER@${k}`), el("span", { class: "key hr" }, `HR@${h}`),
      targeted ? defended && el("span", { class: "key twin" }, `ER@${k} without the defense`) : el("span", { class: "key twin" }, `HR@${h} without the attack`),
      el("span", { class: "hint" }, "mean over seeds; band: lowest to highest seed")),
    places.length ? grid : el("p", { class: "empty" }, "no run is compared"), more);
}

// The entries with a card that a name in the tables is made of.
function parts(kind, name) {
  const base = name.split(" (")[0].replace(/ within eps .*$/, "");
  return (kind === "defense" ? base.split("+") : [base]).filter((part) => Object.hasOwn(DATA.cards[kind], part));
}

// The cards of an entry; of a chain a+b those of its parts.
function card(kind, name) {
  return parts(kind, name).map((part) => {
    const of = DATA.cards[kind][part];
    const list = (value) => (Array.isArray(value) ? value.join(", ") || "nothing" : value);
    const told = kind === "attack"
      ? [["Goal", of.goal], ["Channel", of.channel], ["Clients", list(of.clients)], ["Knows", list(of.knowledge)], ["Models", list(of.models) ?? "any"], ["Version", of.version], ["Versions that ran", list(of.ran)], ["Verified by its authors", of.verified]]
      : [["Family", of.family], ["Assumes", of.assumes], ["Must know", list(of.knowledge)], ["Models", list(of.models) ?? "any"], ["Version", of.version], ["Verified by its authors", of.verified]];
    const old = DATA.superseded.filter((each) => each.kind === kind && each.name === part);
    return el("section", { class: "card" }, el("h3", {}, of.title ?? part), of.paper && el("p", { class: "paper" }, of.paper),
      !of.installed && el("p", { class: "hint" }, "Not installed where this page was made: this is what its records tell."),
      old.map((each) => el("p", { class: "lacks" }, `Superseded: ${plural(each.runs, "run")} of version ${each.version}, newest is ${each.newest}: not ranked.`)),
      facts(told), of.notes && el("p", {}, of.notes),
      of.parameters?.length > 0 && el("details", {}, el("summary", {}, plural(of.parameters.length, "parameter")),
        el("dl", { class: "parameters" }, of.parameters.map((each) => [el("dt", {}, el("code", {}, `${each.name} = ${each.default}`)), el("dd", {}, each.description)]))),
      of.source && el("p", { class: "hint" }, el("code", {}, `fedbench show ${part}`), ` · ${of.source}`));
  });
}

function facts(pairs) {
  return el("dl", { class: "facts2" }, pairs.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value instanceof Node ? value : String(value)))));
}

const SCENARIOS = new Map(DATA.scenarios.map((each, place) => [each.id, place]));
const RUNS = new Map(DATA.runs.seed.map((seed, place) => [runId(place), place]));

function runId(place) {
  return `${DATA.scenarios[DATA.runs.scenario[place]].id}-s${DATA.runs.seed[place]}`;
}

function metric(place, name, k = state.k) {
  return DATA.metrics[k][place][DATA.metric_names.indexOf(name)] ?? null;
}

function metricColumns(k) {
  const h = DATA.options.h[k];
  const column = (name, label, signed) => ({ key: name, label, kind: "number", digits: 2, signed, of: (run) => metric(run, name, k) });
  if (state.track === "visual") return [column("er", `ER@${k}`), column("er_peak", "Peak"), column("ndcg_chosen", `NDCG@${h}`)];
  if (state.track === "demotion") return [column("dr", `DR@${k}`), column("er", `ER@${k}`), column("hr", `HR@${h}`)];
  return state.track === "targeted"
    ? [column("er", `ER@${k}`), column("er_peak", "Peak"), column("hr", `HR@${h}`)]
    : [column("hr_chosen", `HR@${h}`), column("ndcg_chosen", `NDCG@${h}`), column("hr_loss", "Loss %", true), column("hr", `HR@${h} at the end`)];
}

function runTable(runs) {
  const of = (run) => DATA.scenarios[DATA.runs.scenario[run]];
  const columns = [
    { key: "run", label: "Run", kind: "name", of: runId },
    { key: "scenario", label: "Scenario", kind: "text", of: (run) => scenarioText(of(run)) },
    { key: "seed", label: "Seed", kind: "count", of: (run) => DATA.runs.seed[run] },
    { key: "status", label: "Status", kind: "text", of: (run) => DATA.runs.status[run] },
    ...metricColumns(state.k),
  ];
  return el("section", {}, el("h3", {}, `${plural(runs.length, "run")} behind the numbers`),
    el("p", { class: "hint" }, "One run from near: ", el("code", {}, "fedbench inspect RUN"), ". Choose a run for its record."),
    table({ id: "runs", caption: "Runs behind the numbers", columns, rows: runs, open: (run) => show(address("run", runId(run))) }));
}

// The run once more, of the suite that it was made for.
function again(scenario, place) {
  const only = ["dataset", "model", "attack", "defense", "malicious_ratio"].map((name) => `${name}=${scenario[name]}`).join(",");
  return `fedbench run ${quoted(DATA.runs.suite[place])} --only ${quoted(only)} --seeds ${DATA.runs.seed[place] + 1}`;
}

function scenarioText(of) {
  const under = of.defense === "none" ? "" : ` under ${of.defense}`;
  return `${of.attack}${under} · ${of.dataset} · ${of.model} · ${percent(of.malicious_ratio)}${of.target === "none" ? "" : ` · ${of.target}`}${bound(of).map((text) => ` · ${text}`).join("")}`;
}

// The bound of the images that a scenario's attack shows, in the track of images.
function bound(scenario) {
  const eps = state.track === "visual" ? JSON.parse(DATA.params[scenario.params.attack_params]).eps : undefined;
  return eps === undefined ? [] : [`eps ${eps}`];
}

function runRecord(place) {
  const scenario = DATA.scenarios[DATA.runs.scenario[place]];
  const origin = DATA.origins[DATA.runs.origin[place]];
  const id = runId(place);
  const twins = [["Clean twin", "clean_id"], ["Undefended twin", "undefended_id"], ["Baseline", "baseline_id"]].map(([label, key]) => {
    const twin = `${scenario[key]}-s${DATA.runs.seed[place]}`;
    if (twin === id) return [label, "itself"];
    return [label, RUNS.has(twin) ? el("button", { type: "button", class: "open", onclick: () => show(address("run", twin)) }, twin) : `${twin} (no record)`];
  });
  const params = Object.entries(scenario.params).map(([name, at]) => [name.replace("_", " "), el("code", {}, DATA.params[at])]);
  return {
    kind: "Run record", title: id,
    content: [
      el("p", {}, scenarioText(scenario)),
      command(`fedbench inspect ${id}`), DATA.runs.suite[place] && command(again(scenario, place)),
      DATA.runs.superseded[place] && el("p", { class: "lacks" }, "Superseded: there are runs of a newer version of its attack, defense or model. It is not ranked."),
      DATA.runs.error[place] && el("p", { class: "lacks" }, `${DATA.runs.status[place]}: ${DATA.runs.error[place]}`),
      el("div", { class: "frame" }, el("table", {}, el("caption", { class: "unseen" }, "Metrics"),
        el("thead", {}, el("tr", {}, ["K", ...["ER", "ER peak", "HR", "HR chosen", "NDCG chosen", "HR loss %", "DR"]].map((text) => el("th", { scope: "col", class: "number" }, text)))),
        el("tbody", {}, DATA.options.k.map((k) => el("tr", {}, el("th", { scope: "row", class: "number" }, String(k)), DATA.metric_names.map((name) => el("td", { class: "number" }, num(metric(place, name, k), { digits: 2 })))))))),
      facts([["Status", DATA.runs.status[place]], ["Seed", DATA.runs.seed[place]], ["Epochs", `${DATA.runs.epochs[place]} of ${DATA.runs.planned[place]}`], ["Suite", DATA.runs.suite[place]], ["Started", DATA.runs.started[place]],
        ["Protocol", scenario.protocol], ["Split", scenario.split], ["Malicious clients", scenario.num_malicious], ["Targets", scenario.num_targets], ...twins]),
      curves([place]),
      el("section", {}, el("h3", {}, "Parameters"), facts(params)),
      el("section", {}, el("h3", {}, "Made by"), facts(Object.entries(origin).map(([name, value]) => [name.replaceAll("_", " "), value]))),
    ],
  };
}
