// Tables: columns that are data, headers that sort, rows that open what is behind them.

// A column: key, label, help, kind ("text" | "number" | "estimate" | "count" | "name"), of (value of a row), and
// for numbers digits and signed; `within` is what is possible: an interval is shown inside of it, and of a share all of it.
// The most important come first: a table shows so many of those that are not all zero, the others on demand.
const MOST_COLUMNS = 8, MOST_ROWS = 40;
const SHARE = [0, 100], POINTS = [-100, 100], LOST = [-Infinity, 100];
const rankColumn = { key: "rank", label: "Rank", kind: "rank", of: (row) => row.rank ?? null, help: "The places that the runs leave open; none when a scenario of the comparison is missing, or for an entry of which runs are not isolated" };
const beatsColumn = { key: "beats", label: "Beats", kind: "number", digits: 0, of: (row) => row.beats, help: "How many entries it is significantly better than: paired tests with Holm's correction, 5 %" };
const averageColumn = { key: "average_rank", label: "Mean rank", kind: "number", of: (row) => row.average_rank, help: "Over scenarios" };
const knowsColumn = { key: "knowledge", label: "Knows", kind: "text", of: (row) => knows(row).join(", ") || "nothing more", help: "Beyond the public parameters of the rounds in which its clients were sampled" };
const attackColumn = { key: "attack", label: "Attack", kind: "name", of: (row) => row.attack };
const runsColumn = { key: "runs", label: "Runs", kind: "count", of: (row) => DATA.lists[row.runs].length };

function attackColumns(track, k, h) {
  const change = { key: "hr_change", label: `HR@${h} change`, kind: "estimate", signed: true, within: POINTS, of: (row) => row.hr_change, help: "Attacked run minus its clean twin of the same seed, in points" };
  const hr = { key: "hr", label: `HR@${h}`, kind: "number", digits: track.exposes ? 1 : 2, of: (row) => row.hr, help: "Under the attack" };
  const peak = { key: "peak", label: "Peak", kind: "number", of: (row) => row.peak, help: "Highest value during training" };
  const er = { key: "er", label: `ER@${k}`, kind: "estimate", within: SHARE, of: (row) => row.er, help: "Share of users, who have not interacted with a target, to whom it is shown; mean over scenarios of the mean over seeds" };
  const lost = { key: "ndcg_loss", label: `NDCG@${h} loss %`, kind: "estimate", signed: true, within: LOST, of: (row) => row.ndcg_loss };
  const exposed = [peak, { key: "tail", label: "Tail", kind: "number", of: (row) => row.tail, help: "Mean over the last quarter of training" }];
  const first = { key: "first", label: "First", kind: "count", of: (row) => row.first, help: "(dataset, model) pairs of which it has all scenarios and no other such attack a higher mean" };
  const [own, more] = {
    targeted: [[er, change, peak], [hr, exposed[1], first]],
    untargeted: [
      [{ key: "loss", label: `HR@${h} loss %`, kind: "estimate", signed: true, within: LOST, of: (row) => row.loss, help: "Share of the clean twin's hit ratio that the attacked run lacks" }, lost,
        { key: "loss_end", label: "Loss at\u00a0the\u00a0end\u00a0%", kind: "number", signed: true, of: (row) => row.loss_end, help: "At the last evaluation" }],
      [hr, { key: "clean_hr", label: `Clean HR@${h}`, kind: "number", digits: 2, of: (row) => row.clean_hr }],
    ],
    demotion: [
      [{ key: "dr", label: `DR@${k}`, kind: "estimate", within: SHARE, of: (row) => row.dr, help: "Of the users to whom the clean twin shows a target, the share to whom the attacked run does not" }, change,
        { ...er, kind: "number", help: "Share of users to whom a target is shown" }],
      [hr, { key: "clean_er", label: `Clean ER@${k}`, kind: "number", of: (row) => row.clean_er, help: "Likewise without the attack" }],
    ],
    visual: [
      [er, { ...lost, label: "NDCG@20 loss %", help: "Share of the clean twin's NDCG@20 that the attacked run lacks" },
        { key: "psnr", label: "PSNR dB", kind: "number", of: (row) => row.psnr, help: "Of the images that were shown last against the original ones" }],
      [{ key: "change", label: "Max change", kind: "number", of: (row) => row.change, help: "Largest change of a pixel, of 255, in these images" },
        { key: "cosine", label: "Cosine", kind: "number", digits: 2, of: (row) => row.cosine, help: "Of their features against those of the original ones" }, hr, ...exposed, first],
    ],
  }[Object.keys(TRACKS).find((name) => TRACKS[name] === track)];
  return [rankColumn, attackColumn, ...own, beatsColumn, knowsColumn, runsColumn, ...more, averageColumn, ...counts()];
}

function counts() {
  return [
    { key: "scenarios", label: "Scenarios", kind: "count", of: (row) => row.scenarios, help: "Of those that are compared" },
    { key: "broken", label: "Broken", kind: "bad", of: (row) => row.broken, help: "Runs that diverged, or whose HR@10 fell below that of recommending by popularity" },
    { key: "failed", label: "Failed", kind: "bad", of: (row) => row.failed },
    { key: "missing", label: "Missing", kind: "bad", of: (row) => DATA.texts[row.missing].length, help: "Scenarios of the comparison that it lacks" },
    { key: "refused", label: "Refused", kind: "bad", of: (row) => row.refused, help: "Uploads that were not finite, which no server takes" },
    { key: "warned", label: "Warned", kind: "bad", of: (row) => row.warned, help: "Runs that carry a warning" },
  ];
}

function defenseColumns(track, words) {
  const number = (key, label, of, help, rest) => ({ key, label, kind: "number", of, help, ...rest });
  return [
    rankColumn,
    { key: "defense", label: "Defense", kind: "name", of: (row) => row.defense },
    { key: "prevented", label: words.prevented, kind: "estimate", signed: true, within: track.exposes ? POINTS : undefined, of: (row) => row[track.prevented] },
    { key: "cost", label: words.cost, kind: "estimate", signed: true, within: track === TRACKS.targeted || track === TRACKS.demotion ? POINTS : LOST, of: (row) => row[track.cost], help: track.exposes ? "What it costs: the larger of the losses without an attack and under one" : "What it costs without an attack" },
    number("net", "Net", (row) => row.net, "What it prevents minus what it costs", { signed: true }),
    { key: "worst", label: "Worst attack", kind: "text", of: (row) => (row.worst ? `${row.worst[0]} ${num(row.worst[1])}` : "–"), help: "The one that keeps the most" },
    beatsColumn,
    { ...knowsColumn, label: "Must know", of: (row) => knows(row).join(", ") || "nothing", help: "Beyond the uploads" },
    runsColumn,
    { key: "family", label: "Family", kind: "text", of: (row) => row.family || "–" },
    ...(track.exposes ? [
      number("clean", words.clean, (row) => row.loss?.[0] ?? null, "Without an attack", { signed: true }),
      number("attacked", words.attacked, (row) => row.loss_attacked?.[0] ?? null, "Under attack, against the run without the defense", { signed: true }),
    ] : []),
    number("left", words.left, (row) => row[track.left]),
    number("hr", words.hr, (row) => row.hr, "Under attack", { digits: track.exposes ? 1 : 2 }),
    ...(track.exposes && track !== TRACKS.demotion ? [number("peak", "At peak", (row) => row.peak, "Highest value during training: a defense that ends near 0 after a high peak was overrun early")] : []),
    ...(track === TRACKS.untargeted ? [
      number("net_end", "Net at\u00a0the\u00a0end", (row) => row.net_end, "At the last evaluation", { signed: true }),
      number("left_end", "Left at\u00a0the\u00a0end\u00a0%", (row) => row.left_end, "At the last evaluation"),
    ] : []),
    { key: "front", label: "Front", kind: "text", of: (row) => (row.front === null ? "–" : row.front ? "yes" : "no"), help: "No ranked defense, nor having none, is as good in both and better in one" },
    averageColumn,
    { key: "adaptive", label: "Worst adaptive", kind: "text", of: (row) => (row.worst_adaptive ? `${row.worst_adaptive[0]} ${num(row.worst_adaptive[1])}` : "–"), help: "Of the attacks that know the defense" },
    ...(track === TRACKS.visual ? [
      number("auc", "AUC", (row) => row.auc, "How well that cosine tells images of attacks from clean ones", { digits: 2 }),
      number("similarity", "Clean cosine", (row) => row.similarity, "Of the features of clean images before and after the defense, mean over the images", { digits: 2 }),
      number("least_similarity", "Least clean cosine", (row) => row.least_similarity, "Of the clean image that it changes most", { digits: 2 }),
      number("recall_zero_fp", "Recall at no\u00a0false\u00a0alarm\u00a0%", (row) => row.recall_zero_fp, "Share of the attacks' images that can be flagged without a clean one"),
      number("recall", "Flagged\u00a0%", (row) => row.recall, "Share of the attacks' images that the defense flags by its own threshold"),
      number("false_alarms", "False alarms\u00a0%", (row) => row.false_alarms, "Share of the clean images that it flags"),
    ] : []),
    ...counts(),
    number("ms", "ms a round", (row) => row[track.ms], "Extra training time of a round against the undefended twin on the same hardware, median", { signed: true }),
  ];
}

function cellColumns(track, k, h) {
  const [exposes, visual] = [track.exposes, track === TRACKS.visual];
  return [
    attackColumn,
    { key: "dataset", label: "Dataset", kind: "text", of: (row) => row.dataset },
    { key: "model", label: "Model", kind: "text", of: (row) => row.model },
    { key: "malicious_ratio", label: "Malicious", kind: "number", of: (row) => row.malicious_ratio, text: (row) => percent(row.malicious_ratio) },
    ...(visual ? [{ key: "eps", label: "Eps", kind: "number", digits: 0, of: (row) => row.eps, text: (row) => (row.eps === null ? "no image" : String(row.eps)), help: "How far the images may lie from the original ones, in steps of 8-bit pixels" }] : []),
    { key: "value", label: track === TRACKS.demotion ? `DR@${k}` : exposes ? `ER@${k}` : `HR@${h} loss %`, kind: "estimate", within: exposes ? SHARE : LOST, signed: !exposes, of: (row) => row[track.value] },
    visual ? { key: "ndcg", label: "NDCG@20", kind: "number", digits: 2, of: (row) => row.ndcg } : { key: "hr", label: `HR@${h}`, kind: "number", digits: exposes ? 1 : 2, of: (row) => row.hr },
    runsColumn,
    ...(visual ? [{ key: "hr", label: `HR@${h}`, kind: "number", digits: 2, of: (row) => row.hr }] : []),
  ];
}

// The columns of a table that say something: not those of which every value is zero, or missing.
function telling(columns, rows) {
  if (!rows.length) return columns;
  const says = (value) => value !== null && value !== undefined && value !== 0 && value !== "–";
  return columns.filter((column) => column.kind === "name" || rows.some((row) => says(sortValue(column, row))));
}

// What rows are ordered by: the mean of an estimate, the number, or the text; nothing comes last in either direction.
function sortValue(column, row) {
  const value = column.of(row);
  return column.kind === "estimate" ? value?.[0] : value;
}

function sorted(rows, columns, sort) {
  const column = sort && columns.find((each) => each.key === sort.column);
  if (!column) return rows;
  const none = (value) => value === null || value === undefined || value === "–";
  return [...rows].sort((a, b) => {
    const [x, y] = [sortValue(column, a), sortValue(column, b)];
    if (none(x) || none(y)) return none(x) - none(y);
    const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return sort.down ? -order : order;
  });
}

// A table: id (also the key of its order in the address), caption, columns, rows, open(row, event) on a click; `few`: so many
// rows at first. Under it are the rest on demand, and copies.
function table({ id, caption, columns, rows, open, few = MOST_ROWS }) {
  const body = el("tbody");
  const useful = telling(columns, rows);
  const all = state.all.includes(id);
  const shown = all ? useful : useful.slice(0, MOST_COLUMNS);
  const domains = Object.fromEntries(shown.filter((c) => c.kind === "estimate").map((c) => [c.key, domainOf(rows.map(c.of), c)]));
  const heads = shown.map((column) => {
    const button = el("button", { type: "button", title: column.help, onclick: () => sortBy(column) }, column.label, el("span", { class: "arrow", "aria-hidden": "true" }));
    return el("th", { scope: "col", class: column.kind, "data-key": column.key }, button);
  });
  const inOrder = () => sorted(rows, useful, state.sort[id]);
  const fill = () => {
    const sort = state.sort[id];
    heads.forEach((head) => {
      const on = sort && head.dataset.key === sort.column;
      head.setAttribute("aria-sort", on ? (sort.down ? "descending" : "ascending") : "none");
    });
    body.replaceChildren(...inOrder().slice(0, all ? rows.length : few).map((row) => line(shown, row, domains, open)));
  };
  const sortBy = (column) => {
    const now = state.sort[id];
    const down = column.down ?? (column.kind !== "text" && column.kind !== "name" && column.kind !== "rank");
    state.sort[id] = { column: column.key, down: now?.column === column.key ? !now.down : down };
    writeAddress();
    fill();
  };
  fill();
  const frame = el("div", { class: "frame", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", { id }, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, heads)), body));
  const hidden = [rows.length > few && plural(rows.length, "row"), useful.length > MOST_COLUMNS && plural(useful.length, "column")].filter(Boolean);
  return el("div", { class: "sheet" }, frame, el("p", { class: "tools" },
    hidden.length > 0 && el("button", { type: "button", class: "more", "data-all": id, "aria-expanded": String(all), onclick: () => toggleAll(id) }, all ? "Show less" : `Show all ${hidden.join(", ")}`),
    el("span", {}, "Copy as"), Object.entries(FORMATS).map(([name, write]) => el("button", { type: "button", "data-copy": name, "aria-label": `Copy as ${name}: ${caption}`, onclick: () => copy(write(shown, inOrder()), `${caption}, as ${name}`) }, name))));
}

function toggleAll(id) {
  state.all = state.all.includes(id) ? state.all.filter((each) => each !== id) : [...state.all, id];
  writeAddress();
  render();
  document.querySelector(`[data-all="${CSS.escape(id)}"]`)?.focus();
}

function line(columns, row, domains, open) {
  const cells = columns.map((column) => {
    if (column.kind === "name") {
      const name = column.of(row);
      const cut = name.indexOf(" (");
      const words = cut < 0 ? [name] : [name.slice(0, cut), el("small", {}, name.slice(cut + 2, -1))];
      return el("th", { scope: "row", class: "name" }, el("button", { type: "button", class: "open", "aria-haspopup": "dialog" }, words), marks(row));
    }
    return el("td", { class: column.kind, "data-key": column.key }, content(column, row, domains));
  });
  return el("tr", { onclick: (event) => { if (!getSelection().toString()) open(row, event); } }, cells);
}

// What must be known of an entry beside its numbers.
function marks(row) {
  const lacking = row.missing === undefined ? 0 : DATA.texts[row.missing].length;
  const texts = [
    lacking && `no rank: lacks ${lacking} of ${plural(row.scenarios + lacking, "scenario")}`,
    row.seedless && `no rank: lacks ${plural(row.seedless, "seed")}`,
    row.unverified && "no rank: not isolated",
    row.broken && `${row.broken} broken`,
    row.failed && `${row.failed} failed`,
  ].filter(Boolean);
  return texts.length > 0 && el("small", { class: "mark-text" }, texts.join(", "));
}

function content(column, row, domains) {
  if (column.text) return column.text(row);
  const value = column.of(row);
  switch (column.kind) {
    case "estimate": return estimate(value, column, domains[column.key]);
    case "number": return num(value, column);
    case "rank": return value === null ? "–" : row.place.replace("-", "–");
    case "bad": return value ? el("b", {}, String(value)) : el("span", { class: "zero" }, "0");
    default: return String(value);
  }
}

// A mean, its interval as text and as a bar on the column's common scale.
function estimate(value, column, [low, high]) {
  if (!value) return "–";
  const [mean, from, to] = value;
  const cut = (bound) => inside(bound, column);
  const bounds = from === null ? "one run" : `${num(cut(from), column)} to ${num(cut(to), column)}`;
  const x = (at) => 2 + (76 * (at - low)) / (high - low || 1);
  const bar = svg("svg", { viewBox: "0 0 80 12", class: "interval", "aria-hidden": "true", focusable: "false" },
    svg("line", { class: "axis", x1: x(Math.max(low, 0)), x2: x(Math.max(low, 0)), y1: 0, y2: 12 }),
    svg("line", { class: "track", x1: 2, x2: 78, y1: 6, y2: 6 }),
    from !== null && svg("line", { class: "range", x1: x(cut(from)), x2: x(cut(to)), y1: 6, y2: 6 }),
    svg("circle", { class: "mean", cx: x(mean), cy: 6, r: 3 }));
  return el("div", { class: "stat" }, el("span", { class: "mean" }, num(mean, column)), el("span", { class: "bar" }, bar, el("small", {}, bounds)));
}

function inside(bound, column) {
  const [least, most] = column.within || [-Infinity, Infinity];
  return Math.min(most, Math.max(least, bound));
}

function domainOf(values, column) {
  const there = values.filter(Boolean);
  if (column.within === SHARE) return SHARE;
  return [Math.min(0, ...there.map(([mean, from]) => inside(from ?? mean, column))), Math.max(0, ...there.map(([mean, , to]) => inside(to ?? mean, column)))];
}
