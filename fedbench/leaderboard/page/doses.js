// How many malicious clients an attack needs, and how many times as many under a defense: small multiples, a panel a board.

function chosenPanels(all) {
  return all.filter((each) => FILTERS.every((name) => state[name] === "" || each[name] === state[name]));
}

function dosePanels() {
  return state.track === "targeted" && DATA.doses ? chosenPanels(DATA.doses.panels) : [];
}

function panelName({ name, dataset, model }) {
  return name ?? `${model} on ${dataset}`;
}

function signs(text) {
  return text.replaceAll("<=", "≤").replaceAll(">=", "≥").replace(/^x /, "× ");
}

// A dose as what it is ranked by: that of an attack that reaches half of the users nowhere is above all others.
function doseOf({ half }) {
  return half ? half.ratio ?? Infinity : null;
}

// The curves of a board in its order; those without a rank stand where their dose puts them.
function inBoardOrder({ curves }) {
  const out = curves.filter((each) => allowed(each) && each.rank !== null);
  for (const curve of curves.filter((each) => allowed(each) && each.rank === null)) {
    const at = out.findIndex((each) => (doseOf(each) ?? Infinity) > (doseOf(curve) ?? Infinity));
    out.splice(at < 0 ? out.length : at, 0, curve);
  }
  return out;
}

// The attacks of the panels, by their mean place over these.
function dosed(panels) {
  const places = new Map();
  for (const order of panels.map(inBoardOrder)) {
    order.forEach(({ attack }, place) => places.set(attack, [...(places.get(attack) ?? []), order.length > 1 ? place / (order.length - 1) : 0]));
  }
  const mean = (list) => list.reduce((sum, each) => sum + each, 0) / list.length;
  return [...places].sort(([a, x], [b, y]) => mean(x) - mean(y) || a.localeCompare(b)).map(([attack]) => attack);
}

// The attacks that have a colour; until somebody chooses the best ranked of each board in turn.
function compared(attacks, panels) {
  if (state.compare) return state.compare.filter((name) => attacks.includes(name));
  const orders = panels.map((panel) => inBoardOrder(panel).filter((each) => each.rank !== null));
  const turns = Array.from({ length: 3 }, (_, n) => orders.map((order) => order[n]?.attack)).flat();
  return [...new Set(turns.filter(Boolean))].slice(0, 3);
}

function doses(panels) {
  const attacks = dosed(panels);
  const chosen = compared(attacks, panels);
  const colour = (attack) => (chosen.includes(attack) ? `colour-${chosen.indexOf(attack)}` : "");
  const chips = attacks.map((attack) => el("button", { type: "button", class: `chip ${colour(attack)}`, "data-attack": attack, "aria-pressed": String(chosen.includes(attack)),
    disabled: !chosen.includes(attack) && chosen.length >= COLOURS, onclick: () => {
      change({ compare: chosen.includes(attack) ? chosen.filter((each) => each !== attack) : [...chosen, attack] });
      document.querySelector(`.chip[data-attack="${CSS.escape(attack)}"]`)?.focus();
    } }, attack));
  return [
    el("div", { class: "panels" }, panels.map((panel) => el("figure", {}, el("figcaption", {}, el("b", {}, panelName(panel)), ` ${plural(panel.users, "user")}`), doseChart(panel, chosen, colour),
      el("ul", { class: "halves" }, chosen.flatMap((attack) => panel.curves.filter((each) => each.attack === attack && each.half)).map((curve) =>
        el("li", { class: colour(curve.attack) }, el("button", { type: "button", class: "open", onclick: () => show(address("dose", panelName(panel), curve.attack)) }, curve.attack), ` ${signs(curve.half.text)}`)))))),
    el("p", { class: "hint" }, `Share of users who are shown the target (ER@${DATA.doses.k}, last quarter of training) against the share of malicious clients. Under each picture: the share at which it is half of the users. Compare up to ${COLOURS}:`),
    el("div", { class: "chips", role: "group", "aria-label": "Attacks to compare" }, chips),
  ];
}

function doseChart(panel, chosen, colour) {
  const [width, height, left, right, top, bottom] = [320, 190, 30, 10, 8, 34];
  const ladder = DATA.doses.ladder;
  const [low, high] = [Math.log(ladder[0]), Math.log(ladder.at(-1))];
  const x = (ratio) => left + ((Math.log(ratio) - low) / (high - low || 1)) * (width - left - right);
  const y = (value) => height - bottom - (value / 100) * (height - bottom - top);
  const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart doses", role: "group", "aria-label": `Exposure against dose: ${panelName(panel)}` });
  for (const at of [0, 50, 100]) {
    figure.append(svg("line", { class: at === 50 ? "half" : "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }), svg("text", { class: "tick", x: left - 5, y: y(at) + 4, "text-anchor": "end" }, at));
  }
  let last = -Infinity;
  for (const ratio of ladder) {
    if (x(ratio) - last < 30) continue;
    last = x(ratio);
    figure.append(svg("text", { class: "tick", x: last, y: height - bottom + 14, "text-anchor": "middle" }, String(Number((100 * ratio).toPrecision(3)))));
  }
  figure.append(svg("text", { class: "tick", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "% malicious clients"));
  const path = (list) => `M${list.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("L")}`;
  const order = (curve) => chosen.indexOf(curve.attack);
  for (const curve of [...panel.curves].filter(allowed).sort((a, b) => order(a) - order(b))) {
    const on = order(curve) >= 0;
    const open = (ratio) => show(address("dose", panelName(panel), curve.attack, ...(ratio === undefined ? [] : [ratio])));
    const banded = curve.points.filter((point) => point.low !== null && point.low !== undefined);
    if (on && banded.length > 1) figure.append(svg("path", { class: `band ${colour(curve.attack)}`, d: `${path([...banded.map((p) => [p.ratio, Math.max(0, p.low)]), ...banded.map((p) => [p.ratio, Math.min(100, p.high)]).reverse()])}Z` }));
    figure.append(svg("path", { class: `dose ${colour(curve.attack)}`, d: path(curve.points.map((p) => [p.ratio, p.er])), onclick: () => open() }, svg("title", {}, curve.attack)));
    if (on) for (const point of curve.points) {
      const label = `${curve.attack}, ${percent(point.ratio)} (${plural(point.clients, "client")}): ${num(point.er)}`;
      figure.append(svg("circle", { class: `point ${colour(curve.attack)}`, cx: x(point.ratio), cy: y(point.er), r: 3.5, tabindex: 0, role: "button", "aria-label": label, onclick: () => open(point.ratio), onkeydown: pressed(() => open(point.ratio)) }, svg("title", {}, label)));
    }
  }
  return figure;
}

// Of one board all that is known of an attack's doses; of several the half-exposure dose on each.
function doseTable(panels) {
  const half = (curve) => ({ of: () => (curve ? doseOf(curve) : null), text: () => signs(curve?.half?.text ?? "–") });
  const one = panels.length === 1;
  const title = "Attacks by half-exposure dose";
  const rows = dosed(panels).map((attack) => ({ attack, by: panels.map((panel) => panel.curves.find((each) => each.attack === attack)) }));
  for (const row of rows) row.seedless = row.by.reduce((sum, each) => sum + (each?.rank === null ? each.lacking?.length ?? 0 : 0), 0);
  const k = DATA.doses.k;
  const columns = one ? [
    ...(rows.some(({ by }) => by[0].rank) ? [rankColumn] : []), attackColumn,
    { key: "half", label: "Half-exposure dose", kind: "number", down: false, of: (row) => doseOf(row.by[0]), text: (row) => half(row.by[0]).text(), help: "Share of malicious clients at which half of the users are shown the target: median over seeds, with its interval" },
    { key: "area", label: `ER@${k} over doses`, kind: "estimate", within: SHARE, of: ({ by }) => (by[0].area ? [by[0].area.mean, by[0].area.low, by[0].area.high, by[0].seeds] : null), help: "Mean over the doses" },
    { key: "beats", label: "Beats", kind: "number", digits: 0, of: ({ by }) => by[0].beats ?? null, help: beatsColumn.help },
    { key: "hr", label: "HR@10", kind: "number", of: ({ by }) => by[0].hr ?? null, help: "Under the attack" },
    { ...knowsColumn, of: ({ by }) => (by[0].knowledge === undefined ? "–" : knowsColumn.of(by[0])) },
    { key: "runs", label: "Runs", kind: "count", of: ({ by }) => runsOf(by[0]).length },
    { key: "peak", label: "Peak", kind: "number", of: ({ by }) => by[0].peak ?? null, help: "Mean over the doses of the highest value during training" },
    { key: "end", label: "End", kind: "number", of: ({ by }) => by[0].end ?? null, help: "Mean over the doses of the last value" },
  ] : [attackColumn, ...panels.map((panel, n) => ({ key: `half-${n}`, label: panelName(panel), kind: "number", down: false, of: (row) => half(row.by[n]).of(), text: (row) => half(row.by[n]).text(), help: "Half-exposure dose" }))];
  for (const row of rows) Object.assign(row, one && row.by[0].rank ? { rank: row.by[0].rank, place: row.by[0].last_rank > row.by[0].rank ? `${row.by[0].rank}-${row.by[0].last_rank}` : String(row.by[0].rank) } : {});
  const open = (row, event) => {
    const at = one ? 0 : Number(/^half-(\d+)$/.exec(event.target.closest("[data-key]")?.dataset.key)?.[1] ?? row.by.findIndex(Boolean));
    if (row.by[at]) show(address("dose", panelName(panels[at]), row.attack));
  };
  return table({ id: "dose-table", caption: title, columns, rows, open });
}

function runsOf(curve) {
  return curve.points.flatMap((point) => DATA.lists[point.runs]);
}

// What is behind a curve, or one of its points.
function doseDetails([name, attack, ratio]) {
  const panel = (DATA.doses?.panels ?? []).find((each) => panelName(each) === name);
  const curve = panel?.curves.find((each) => each.attack === attack);
  const point = curve?.points.find((each) => String(each.ratio) === ratio);
  if (!curve || (ratio !== undefined && !point)) return undefined;
  const points = point ? [point] : curve.points;
  const columns = [
    { key: "ratio", label: "Malicious", kind: "number", of: (p) => p.ratio, text: (p) => percent(p.ratio) },
    { key: "clients", label: "Clients", kind: "count", of: (p) => p.clients },
    { key: "er", label: `ER@${DATA.doses.k}`, kind: "estimate", within: SHARE, of: (p) => [p.er, p.low ?? null, p.high ?? null] },
    runsColumn,
  ];
  const runs = points.flatMap((each) => DATA.lists[each.runs]);
  return {
    kind: "Dose and response", title: `${attack} on ${name}${point ? `, ${percent(point.ratio)}` : ""}`,
    content: [
      curve.half && el("p", {}, `Half of the users are shown the target at ${signs(curve.half.text)} malicious clients.`),
      table({ id: "points", caption: `${attack}: exposure at each dose, over all seeds; those that did not run it have what their rising response says there`, columns, rows: points, open: (p) => show(address("dose", name, attack, p.ratio)) }),
      source({ dataset: panel.dataset, model: panel.model }), card("attack", attack), runTable(runs),
    ],
  };
}

function chosenPrices() {
  return state.track === "targeted" ? chosenPanels(DATA.prices ?? []) : [];
}

// By which factor defenses raise the attacker's price, against what they cost; a factor that is only known to be larger is an arrow.
function prices(rows, open) {
  const names = [...new Set(rows.map(panelName))];
  const family = (defense) => DATA.cards.defense[defense.split(" (")[0].split("+")[0]]?.family ?? "";
  return [
    el("div", { class: "panels wider" }, names.map((name) => {
      const own = rows.filter((row) => panelName(row) === name && factorOf(row) !== null && row.hr_loss !== null);
      const best = (row) => !own.some((each) => each !== row && factorOf(each) >= factorOf(row) && each.hr_loss <= row.hr_loss && (factorOf(each) > factorOf(row) || each.hr_loss < row.hr_loss));
      return own.length > 0 && el("figure", {}, el("figcaption", {}, el("b", {}, name)), scatter({
        width: 460, height: 300, logarithmic: true, x: "HR@10 loss (points)", y: "price × (dose under the defense / without)", origin: [0, 1],
        points: own.map((row) => ({ x: row.hr_loss, y: factorOf(row), beyond: beyond(row), family: row.family ?? family(row.defense), strong: best(row), name: best(row) ? row.defense : "", label: `${row.defense}: ${signs(row.text)} against ${row.attack}, HR@10 loss ${num(row.hr_loss, { signed: true })}`, open: () => open(row) })),
      }));
    })),
    el("p", { class: "hint" }, "How many times as many clients the attack that suffers least needs, against the HR@10 that users lose. Up and to the left is better; arrows: at least so many times; named: no other defense is as good in both."),
    table({ id: "price-table", caption: "Price of the cheapest attack under each defense", few: 12, open, rows: [...rows].sort((a, b) => (factorOf(b) ?? -1) - (factorOf(a) ?? -1)), columns: [
      { key: "defense", label: "Defense", kind: "name", of: (row) => row.defense },
      ...(names.length > 1 ? [{ key: "panel", label: "On", kind: "text", of: panelName }] : []),
      { key: "factor", label: "Price", kind: "number", of: factorOf, text: (row) => signs(row.text) },
      { key: "attack", label: "Cheapest attack", kind: "text", of: (row) => row.attack },
      { key: "adaptive", label: "Adaptive", kind: "text", of: (row) => (row.adaptive ? `${row.adaptive.attack} ${signs(row.adaptive.text)}` : "–"), help: "Of the attacks that know the defense" },
      { key: "hr_loss", label: "HR@10 loss", kind: "number", digits: 2, signed: true, of: (row) => row.hr_loss },
      { key: "runs", label: "Runs", kind: "count", of: (row) => (row.runs === undefined ? null : DATA.lists[row.runs].length) },
    ] }),
  ];
}

function beyond(row) {
  return row.at_least ?? row.text.startsWith(">");
}

// The factor, or what it is above.
function factorOf(row) {
  return row.factor ?? (beyond(row) ? Number(/[\d.]+/.exec(row.text)?.[0] ?? NaN) : null);
}

function priceDetails([name, defense]) {
  const row = (DATA.prices ?? []).find((each) => panelName(each) === name && each.defense === defense);
  return row && {
    kind: "Price under a defense", title: `${defense} on ${name}`,
    content: [el("p", {}, `The attack that suffers least, ${row.attack}, needs ${signs(row.text)} clients; HR@10 loss ${num(row.hr_loss, { digits: 2, signed: true })} points.`),
      Object.keys(row.factors ?? {}).length > 0 && facts(Object.entries(row.factors).map(([attack, { factor, bound }]) => [attack, factor === null ? "–" : signs(`× ${bound ?? ""}${num(factor)}`)])),
      source({ dataset: row.dataset, model: row.model }), card("defense", defense), row.runs !== undefined && runTable(DATA.lists[row.runs])],
  };
}
