// Tables: columns that are data, headers that sort, rows that open what is behind them.

// A column: key, label, help, kind ("text" | "number" | "estimate" | "count" | "name"), of (value of a row), and
// for numbers digits and signed; `within` is what is possible: an interval is shown inside of it, and of a share all of it.
const SHARE = [0, 100], POINTS = [-100, 100], LOST = [-Infinity, 100];
const rankColumn = { key: "rank", label: "Rank", kind: "rank", of: (row) => row.rank, help: "The places that the runs leave open; none when a scenario of the comparison is missing, or for an entry of which runs are not isolated" };
const beatsColumn = { key: "beats", label: "Beats", kind: "number", digits: 0, of: (row) => row.beats, help: "How many entries it is significantly better than: paired tests with Holm's correction, 5 %" };
const averageColumn = { key: "average_rank", label: "Mean rank", kind: "number", of: (row) => row.average_rank, help: "Over scenarios" };

function attackColumns(track, k, h) {
  const visual = track === TRACKS.visual;
  const columns = [
    rankColumn,
    { key: "attack", label: "Attack", kind: "name", of: (row) => row.attack },
  ];
  if (track === TRACKS.demotion) {
    columns.push(
      { key: "dr", label: `DR@${k}`, kind: "estimate", within: SHARE, of: (row) => row.dr, help: "Of the users to whom the clean twin shows a target, the share to whom the attacked run does not" },
      { key: "hr", label: `HR@${h}`, kind: "number", of: (row) => row.hr, help: "Under the attack" },
      { key: "er", label: `ER@${k}`, kind: "number", of: (row) => row.er, help: "Share of users to whom a target is shown" },
      { key: "clean_er", label: `Clean ER@${k}`, kind: "number", of: (row) => row.clean_er, help: "Likewise without the attack" },
      { key: "hr_change", label: `HR@${h} change`, kind: "estimate", signed: true, within: POINTS, of: (row) => row.hr_change, help: "Attacked run minus its clean twin of the same seed, in points" },
    );
  } else if (track.exposes) {
    columns.push(
      { key: "er", label: `ER@${k}`, kind: "estimate", within: SHARE, of: (row) => row.er, help: "Share of users, who have not interacted with a target, to whom it is shown; mean over scenarios of the mean over seeds" },
      { key: "hr", label: `HR@${h}`, kind: "number", of: (row) => row.hr, help: "Under the attack" },
      { key: "peak", label: "Peak", kind: "number", of: (row) => row.peak, help: "Highest value during training" },
      { key: "tail", label: "Tail", kind: "number", of: (row) => row.tail, help: "Mean over the last quarter of training" },
    );
    if (visual) columns.push(
      { key: "ndcg_loss", label: "NDCG@20 loss %", kind: "estimate", signed: true, within: LOST, of: (row) => row.ndcg_loss, help: "Share of the clean twin's NDCG@20 that the attacked run lacks" },
      { key: "change", label: "Max change", kind: "number", of: (row) => row.change, help: "Largest change of a pixel, of 255, in the images that were shown last" },
      { key: "psnr", label: "PSNR dB", kind: "number", of: (row) => row.psnr, help: "Of these images against the original ones" },
      { key: "cosine", label: "Cosine", kind: "number", digits: 2, of: (row) => row.cosine, help: "Of their features against those of the original ones" },
    );
    else columns.push({ key: "hr_change", label: `HR@${h} change`, kind: "estimate", signed: true, within: POINTS, of: (row) => row.hr_change, help: "Attacked run minus its clean twin of the same seed, in points" });
  } else {
    columns.push(
      { key: "loss", label: `HR@${h} loss %`, kind: "estimate", signed: true, within: LOST, of: (row) => row.loss, help: "Share of the clean twin's hit ratio that the attacked run lacks" },
      { key: "ndcg_loss", label: `NDCG@${h} loss %`, kind: "estimate", signed: true, within: LOST, of: (row) => row.ndcg_loss },
      { key: "loss_end", label: "Loss at\u00a0the\u00a0end\u00a0%", kind: "number", signed: true, of: (row) => row.loss_end, help: "At the last evaluation" },
      { key: "hr", label: `HR@${h}`, kind: "number", digits: 2, of: (row) => row.hr },
      { key: "clean_hr", label: `Clean HR@${h}`, kind: "number", digits: 2, of: (row) => row.clean_hr },
    );
  }
  columns.push(beatsColumn, averageColumn, { key: "knowledge", label: "Knows", kind: "text", of: (row) => knows(row).join(", ") || "nothing more", help: "Beyond the public parameters of the rounds in which its clients were sampled" });
  const first = { key: "first", label: "First", kind: "count", of: (row) => row.first, help: "(dataset, model) pairs of which it has all scenarios and no other such attack a higher mean" };
  return [...columns, ...counts(), ...(track.exposes && track !== TRACKS.demotion ? [first] : [])];
}

function counts() {
  return [
    { key: "scenarios", label: "Scenarios", kind: "count", of: (row) => row.scenarios, help: "Of those that are compared" },
    { key: "runs", label: "Runs", kind: "count", of: (row) => DATA.lists[row.runs].length },
    { key: "broken", label: "Broken", kind: "bad", of: (row) => row.broken, help: "Runs that diverged, or whose HR@10 fell below that of recommending by popularity" },
    { key: "failed", label: "Failed", kind: "bad", of: (row) => row.failed },
    { key: "missing", label: "Missing", kind: "bad", of: (row) => DATA.texts[row.missing].length, help: "Scenarios of the comparison that it lacks" },
    { key: "refused", label: "Refused", kind: "bad", of: (row) => row.refused, help: "Uploads that were not finite, which no server takes" },
    { key: "warned", label: "Warned", kind: "bad", of: (row) => row.warned, help: "Runs that carry a warning" },
  ];
}

function defenseColumns(track, words) {
  return [
    rankColumn,
    { key: "defense", label: "Defense", kind: "name", of: (row) => row.defense },
    { key: "family", label: "Family", kind: "text", of: (row) => row.family || "–" },
    { key: "prevented", label: words.prevented, kind: "estimate", signed: true, within: track.exposes ? POINTS : undefined, of: (row) => row[track.prevented] },
    { key: "cost", label: words.cost, kind: "estimate", signed: true, within: track === TRACKS.targeted || track === TRACKS.demotion ? POINTS : LOST, of: (row) => row[track.cost], help: track.exposes ? "What it costs: the larger of the losses without an attack and under one" : "What it costs without an attack" },
    ...(track.exposes ? [
      { key: "clean", label: words.clean, kind: "number", signed: true, of: (row) => row.loss?.[0] ?? null, help: "Without an attack" },
      { key: "attacked", label: words.attacked, kind: "number", signed: true, of: (row) => row.loss_attacked?.[0] ?? null, help: "Under attack, against the run without the defense" },
    ] : []),
    { key: "net", label: "Net", kind: "number", signed: true, of: (row) => row.net, help: "What it prevents minus what it costs" },
    beatsColumn,
    averageColumn,
    { key: "front", label: "Front", kind: "text", of: (row) => (row.front === null ? "–" : row.front ? "yes" : "no"), help: "No ranked defense, nor having none, is as good in both and better in one" },
    { key: "left", label: words.left, kind: "number", of: (row) => row[track.left] },
    { key: "hr", label: words.hr, kind: "number", digits: track.exposes ? 1 : 2, of: (row) => row.hr, help: "Under attack" },
    ...(track.exposes && track !== TRACKS.demotion ? [{ key: "peak", label: "At peak", kind: "number", of: (row) => row.peak, help: "Highest value during training: a defense that ends near 0 after a high peak was overrun early" }] : []),
    ...(track === TRACKS.untargeted ? [
      { key: "net_end", label: "Net at\u00a0the\u00a0end", kind: "number", signed: true, of: (row) => row.net_end, help: "At the last evaluation" },
      { key: "left_end", label: "Left at\u00a0the\u00a0end\u00a0%", kind: "number", of: (row) => row.left_end, help: "At the last evaluation" },
    ] : []),
    { key: "worst", label: "Worst attack", kind: "text", of: (row) => (row.worst ? `${row.worst[0]} ${num(row.worst[1])}` : "–"), help: "The one that keeps the most" },
    { key: "adaptive", label: "Worst adaptive", kind: "text", of: (row) => (row.worst_adaptive ? `${row.worst_adaptive[0]} ${num(row.worst_adaptive[1])}` : "–"), help: "Of the attacks that know the defense" },
    ...(track === TRACKS.visual ? [
      { key: "similarity", label: "Clean cosine", kind: "number", digits: 2, of: (row) => row.similarity, help: "Of the features of clean images before and after the defense, mean over the images" },
      { key: "least_similarity", label: "Least clean cosine", kind: "number", digits: 2, of: (row) => row.least_similarity, help: "Of the clean image that it changes most" },
      { key: "auc", label: "AUC", kind: "number", digits: 2, of: (row) => row.auc, help: "How well that cosine tells images of attacks from clean ones" },
      { key: "recall_zero_fp", label: "Recall at no\u00a0false\u00a0alarm\u00a0%", kind: "number", of: (row) => row.recall_zero_fp, help: "Share of the attacks' images that can be flagged without a clean one" },
      { key: "recall", label: "Flagged\u00a0%", kind: "number", of: (row) => row.recall, help: "Share of the attacks' images that the defense flags by its own threshold" },
      { key: "false_alarms", label: "False alarms\u00a0%", kind: "number", of: (row) => row.false_alarms, help: "Share of the clean images that it flags" },
    ] : []),
    { key: "knowledge", label: "Must know", kind: "text", of: (row) => knows(row).join(", ") || "nothing" },
    ...counts(),
    { key: "ms", label: "ms a round", kind: "number", signed: true, of: (row) => row[track.ms], help: "Extra training time of a round against the undefended twin on the same hardware, median" },
  ];
}

function cellColumns(track, k, h) {
  const [exposes, visual] = [track.exposes, track === TRACKS.visual];
  return [
    { key: "attack", label: "Attack", kind: "name", of: (row) => row.attack },
    { key: "dataset", label: "Dataset", kind: "text", of: (row) => row.dataset },
    { key: "model", label: "Model", kind: "text", of: (row) => row.model },
    { key: "malicious_ratio", label: "Malicious", kind: "number", of: (row) => row.malicious_ratio, text: (row) => percent(row.malicious_ratio) },
    ...(visual ? [{ key: "eps", label: "Eps", kind: "number", digits: 0, of: (row) => row.eps, text: (row) => (row.eps === null ? "no image" : String(row.eps)), help: "How far the images may lie from the original ones, in steps of 8-bit pixels" }] : []),
    { key: "value", label: track === TRACKS.demotion ? `DR@${k}` : exposes ? `ER@${k}` : `HR@${h} loss %`, kind: "estimate", within: exposes ? SHARE : LOST, signed: !exposes, of: (row) => row[track.value] },
    ...(visual ? [{ key: "hr", label: `HR@${h}`, kind: "number", digits: 2, of: (row) => row.hr }] : []),
    visual ? { key: "ndcg", label: "NDCG@20", kind: "number", digits: 2, of: (row) => row.ndcg } : { key: "hr", label: `HR@${h}`, kind: "number", digits: exposes ? 1 : 2, of: (row) => row.hr },
    { key: "runs", label: "Runs", kind: "count", of: (row) => DATA.lists[row.runs].length },
  ];
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

// A table: id (also the key of its order in the address), caption, columns, rows, open(row, column) on a click.
function table({ id, caption, columns, rows, open }) {
  const body = el("tbody");
  const domains = Object.fromEntries(columns.filter((c) => c.kind === "estimate").map((c) => [c.key, domainOf(rows.map(c.of), c)]));
  const heads = columns.map((column) => {
    const button = el("button", { type: "button", title: column.help, onclick: () => sortBy(column) }, column.label, el("span", { class: "arrow", "aria-hidden": "true" }));
    return el("th", { scope: "col", class: column.kind, "data-key": column.key }, button);
  });
  const fill = () => {
    const sort = state.sort[id];
    heads.forEach((head) => {
      const on = sort && head.dataset.key === sort.column;
      head.setAttribute("aria-sort", on ? (sort.down ? "descending" : "ascending") : "none");
    });
    body.replaceChildren(...sorted(rows, columns, sort).map((row) => line(columns, row, domains, open)));
  };
  const sortBy = (column) => {
    const now = state.sort[id];
    const down = column.kind !== "text" && column.kind !== "name" && column.kind !== "rank";
    state.sort[id] = { column: column.key, down: now?.column === column.key ? !now.down : down };
    writeAddress();
    fill();
  };
  fill();
  const frame = el("div", { class: "frame", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", { id }, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, heads)), body));
  return frame;
}

function line(columns, row, domains, open) {
  const cells = columns.map((column) => {
    if (column.kind === "name") {
      const name = column.of(row);
      const cut = name.indexOf(" (");
      const words = cut < 0 ? [name] : [name.slice(0, cut), el("small", {}, name.slice(cut + 2, -1))];
      return el("th", { scope: "row", class: "name" }, el("button", { type: "button", class: "open", "aria-haspopup": "dialog" }, words));
    }
    return el("td", { class: column.kind }, content(column, row, domains));
  });
  return el("tr", { class: row.rank === null && "unranked", onclick: (event) => { if (!getSelection().toString()) open(row, event); } }, cells);
}

function content(column, row, domains) {
  if (column.text) return column.text(row);
  const value = column.of(row);
  switch (column.kind) {
    case "estimate": return estimate(value, column, domains[column.key]);
    case "number": return num(value, column);
    case "rank": return value === null ? row.unverified ? el("span", { title: "no rank: it does not come with fedbench, and has runs in process" }, "unverified") : el("span", { title: "no rank: it lacks scenarios of the comparison" }, "–") : row.place.replace("-", "–");
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
