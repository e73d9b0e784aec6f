// Pictures: the Pareto plot of defenses, the heat map, and curves over training.

// Families have a colour (Okabe and Ito's, which colour-blind people can tell apart) and a shape of their own.
const FAMILIES = ["aggregation", "clipping", "client-side", "filter", "purification"];

function familyClass(family) {
  return FAMILIES.includes(family) ? `family-${FAMILIES.indexOf(family)}` : "family-other";
}

function shape(family, x, y, r = 5) {
  const at = (points) => points.map(([a, b]) => `${x + a * r},${y + b * r}`).join(" ");
  const common = { class: `mark ${familyClass(family)}` };
  switch (FAMILIES.indexOf(family)) {
    case 0: return svg("circle", { ...common, cx: x, cy: y, r });
    case 1: return svg("polygon", { ...common, points: at([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]) });
    case 2: return svg("polygon", { ...common, points: at([[0, -1.2], [1.1, 0.8], [-1.1, 0.8]]) });
    case 3: return svg("polygon", { ...common, points: at([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]) });
    case 4: return svg("polygon", { ...common, points: at([[0, 1.2], [1.1, -0.8], [-1.1, -0.8]]) });
    default: return svg("polygon", { ...common, points: at([[-1, -0.4], [0, -1.2], [1, -0.4], [0.7, 1], [-0.7, 1]]) });
  }
}

// Round values from low to high, about `count` of them.
function ticks(low, high, count = 6) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= raw);
  const out = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9; n++) out.push(Number((n * step).toPrecision(12)));
  return out;
}

// Points on two axes, the upper one perhaps logarithmic, with labels where there is room.
// `points`: x, y, xs and ys (their intervals), family, strong, name, label, beyond (an arrow: at least so much), open.
function scatter({ points, width, height, x: xTitle, y: yTitle, origin, front, logarithmic = false }) {
  const [left, right, top, bottom] = [52, 12, 14, 46];
  const box = { left, right: width - right, top, bottom: height - bottom };
  const turned = (value) => (logarithmic ? Math.log10(value) : value);
  // Intervals may run out of the picture; the means decide its scale.
  const scale = (values, from, to, f) => {
    const [low, high] = [Math.min(...values.map(f)), Math.max(...values.map(f))];
    const pad = 0.08 * (high - low || 1);
    const inside = (value) => Math.min(high + pad, Math.max(low - pad, f(value)));
    return Object.assign((value) => from + ((inside(value) - low + pad) / (high - low + 2 * pad)) * (to - from), { low: low - pad, high: high + pad });
  };
  const x = scale([origin[0], ...points.map((each) => each.x)], left, width - right, (value) => value);
  const y = scale([origin[1], ...points.map((each) => each.y)], height - bottom, top, turned);
  const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "pareto", role: "group", "aria-label": `${yTitle} against ${xTitle}` });
  for (const at of ticks(x.low, x.high, width < 500 ? 4 : 8)) {
    figure.append(svg("line", { class: at === origin[0] ? "zero" : "grid", x1: x(at), x2: x(at), y1: top, y2: height - bottom }),
      svg("text", { class: "tick", x: x(at), y: height - bottom + 16, "text-anchor": "middle" }, num(at, { digits: decimals(at) })));
  }
  const powers = () => [-2, -1, 0, 1, 2, 3].flatMap((power) => [1, 2, 5].map((each) => each * 10 ** power)).filter((value) => turned(value) >= y.low && turned(value) <= y.high);
  for (const at of logarithmic ? powers() : ticks(y.low, y.high)) {
    figure.append(svg("line", { class: at === origin[1] ? "zero" : "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }),
      svg("text", { class: "tick", x: left - 8, y: y(at) + 4, "text-anchor": "end" }, logarithmic ? `×${Number(at.toPrecision(3))}` : num(at, { digits: decimals(at) })));
  }
  figure.append(
    svg("text", { class: "label", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "label", x: 0, y: 0, transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle));
  // Up to the next point's loss, no more can be had than what the point before it gives.
  if (front) figure.append(svg("path", { class: "front", d: `${front.map(([cost, gain], n) => (n ? `H${x(cost)}V${y(gain)}` : `M${x(cost)},${y(gain)}`)).join("")}H${width - right}` }));
  const [ox, oy] = [x(origin[0]), y(origin[1])];
  const taken = [[ox, oy, 7, 7], ...points.map((each) => [x(each.x), y(each.y), 7, 7])];
  figure.append(svg("path", { class: "origin", d: `M${ox - 5},${oy - 5}l10,10m0,-10l-10,10` }), placed("none", ox, oy, taken, box));
  for (const each of [...points].sort((a, b) => Number(a.strong) - Number(b.strong))) {
    const [cx, cy] = [x(each.x), y(each.y)];
    const point = svg("g", { class: each.strong ? "point" : "point pale", tabindex: 0, role: "button", onclick: each.open, "aria-label": each.label, onkeydown: pressed(each.open) },
      svg("title", {}, each.label), svg("circle", { class: "halo", cx, cy, r: 12 }));
    if (each.xs && width >= 500) point.append(svg("line", { class: `range ${familyClass(each.family)}`, x1: x(each.xs[0]), x2: x(each.xs[1]), y1: cy, y2: cy }));
    if (each.ys && width >= 500) point.append(svg("line", { class: `range ${familyClass(each.family)}`, x1: cx, x2: cx, y1: y(each.ys[0]), y2: y(each.ys[1]) }));
    if (each.beyond) point.append(svg("path", { class: "beyond", d: `M${cx},${cy - 6}v-9m-3,4l3,-4l3,4` }));
    point.append(shape(each.family, cx, cy));
    if (each.name) point.append(placed(each.name, cx, cy, taken, box));
    figure.append(point);
  }
  return figure;
}

// What a key does on something that is no button.
function pressed(open) {
  return (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } };
}

// Ranked defenses: loss to the right, reduction upwards; none at the origin; the front as a dashed line.
function pareto(track, board, words, width, open) {
  const rows = board[`${track.prefix}defenses`].filter((row) => row.rank !== null && allowed(row));
  if (!rows.length) return undefined;
  const points = rows.map((row) => {
    const [cost, gain] = [row[track.cost], row[track.prevented]];
    return {
      x: cost[0], y: gain[0], xs: cost[1] !== null && cost.slice(1, 3), ys: gain[1] !== null && gain.slice(1, 3), family: row.family, strong: row.front, open: () => open(row),
      name: row.front && width >= 500 ? `${row.number} ${row.defense}` : String(row.number),
      label: `${row.defense}: ${words.prevented} ${num(gain[0], { signed: true })}, ${words.cost} ${num(cost[0], { signed: true })}${row.front ? ", on the front" : ""}`,
    };
  });
  const figure = scatter({ points, width, height: Math.min(460, Math.max(300, width * 0.62)), x: words.x, y: words.y, origin: [0, 0], front: board[`${track.prefix}front`] });
  return el("div", { class: "plot" }, figure, legend(rows, open));
}

function legend(rows, open) {
  const families = [...new Set(rows.map((row) => row.family))].sort((a, b) => order(a) - order(b) || a.localeCompare(b));
  return el("div", { class: "legend" }, families.map((family) => el("section", {},
    el("h4", {}, svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, shape(family, 8, 8)), family || "unknown family"),
    el("ul", {}, rows.filter((row) => row.family === family).map((row) => el("li", { class: row.front ? "on" : undefined },
      el("span", { class: "place" }, String(row.number)), el("button", { type: "button", class: "open", onclick: () => open(row) }, row.defense)))))));
}

function order(family) {
  const at = FAMILIES.indexOf(family);
  return at < 0 ? FAMILIES.length : at;
}

// A label in the first free place around its point, so that labels overlap neither points nor one another.
function placed(text, x, y, taken, box) {
  const [w, h] = [3.3 * text.length + 2, 7];
  let best;
  for (let radius = 12; radius < 60 && !best; radius += 6) {
    for (let turn = 0; turn < 16 && !best; turn++) {
      const angle = Math.PI * (turn % 2 ? (turn + 1) / 16 : -turn / 16) - Math.PI / 6;
      const [cx, cy] = [x + (radius + w - 6) * Math.cos(angle), y + radius * Math.sin(angle)];
      const free = taken.every(([a, b, c, d]) => Math.abs(cx - a) >= w + c || Math.abs(cy - b) >= h + d);
      if (free && cx - w > box.left && cx + w < box.right && cy - h > box.top && cy + h < box.bottom) best = [cx, cy];
    }
  }
  if (!best) return svg("text", {});
  taken.push([...best, w, h]);
  return svg("text", { class: "name", x: best[0], y: best[1] + 4, "text-anchor": "middle" }, text);
}

function decimals(value) {
  return Number.isInteger(value) ? 0 : 1;
}

// The name of an attack in the tables: without the bound that a row of the heat map has, too.
function named(attack) {
  return attack.replace(/, eps [\d.e+-]+$/, "");
}

// What is left of every attack under every defense; within a row all over the same scenarios.
function heat(track, board, caption, open) {
  const rows = board[`${track.prefix}attacks_under_defenses`] ?? [];
  const ranked = board[`${track.prefix}defenses`];
  const every = ranked.filter((row) => allowed(row) && rows.some((each) => Object.hasOwn(each.under, row.defense)));
  const all = state.all.includes("heat");
  const columns = all ? every : every.slice(0, MOST_COLUMNS - 2);
  const attacks = board[`${track.prefix}attacks`];
  const place = (row) => attacks.findIndex((each) => each.attack === named(row.attack));
  const kept = rows.filter((row) => place(row) < 0 || allowed(attacks[place(row)])).sort((a, b) => place(a) - place(b));
  if (!kept.length || !columns.length) return undefined;
  const values = kept.flatMap((row) => [row.left[0], ...Object.values(row.under).map(([left]) => left[0])]);
  const high = track.exposes ? 100 : Math.max(...values, 1);
  const cell = (value, hr, label, opened) => el("td", { class: `heat heat-${Math.max(0, Math.min(9, Math.floor((10 * value[0]) / high)))}` },
    el("button", { type: "button", "aria-label": `${label}: ${num(value[0])}, HR ${num(hr)}`, title: `${label}, HR ${num(hr)}`, onclick: opened }, num(value[0]), track.exposes && el("small", {}, `HR\u00a0${num(hr)}`)));
  const body = kept.map((row) => el("tr", {},
    el("th", { scope: "row", class: "name" }, el("button", { type: "button", class: "open", onclick: () => open.attack(row) }, row.attack)),
    cell(row.left, row.hr, `${row.attack}, no defense`, () => open.attack(row)),
    columns.map(({ defense }) => {
      if (!Object.hasOwn(row.under, defense)) return el("td", { class: "heat none", title: `${row.attack} under ${defense}: not all of the compared scenarios were run` }, "–");
      return cell(row.under[defense][0], row.under[defense][4], `${row.attack} under ${defense}`, () => open.pair(row, defense));
    })));
  const heads = ["none", ...columns.map((row) => row.defense)].map((name) => el("th", { scope: "col", class: "turned" }, el("span", {}, el("span", {}, name))));
  return el("div", {},
    every.length > MOST_COLUMNS - 2 && el("p", { class: "tools" }, el("button", { type: "button", class: "more", "data-all": "heat", "aria-expanded": String(all), onclick: () => toggleAll("heat") }, all ? "Show less" : `Show all ${every.length} defenses`)),
    el("div", { class: "frame", role: "region", "aria-label": caption, tabindex: "0" }, el("table", { id: "heat", class: "heat" }, el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "name" }, "Attack"), heads)), el("tbody", {}, body))),
    el("p", { class: "scale" }, num(0, { digits: 0 }), el("span", { class: "steps", "aria-hidden": "true" }, Array.from({ length: 10 }, (_, n) => el("i", { class: `heat-${n}` }))),
      `${num(high, { digits: decimals(high) })} %`, el("span", { class: "hint" }, "“–”: not compared, for not all of the scenarios were run")));
}

// Mean over the seeds of a scenario at every evaluation, with the band from the lowest to the highest seed.
// `lines`: [{ curve, metric, class, dashed }]; the first one's epochs are the axis.
function chart(lines, label, full) {
  const [width, height, left, bottom, top] = [280, 140, 30, 20, 8];
  const there = lines.filter(({ curve, metric }) => curve?.[metric]);
  if (!there.length) return el("p", { class: "empty" }, "no curve: no run ended well");
  const values = there.flatMap(({ curve, metric }) => curve[metric].flatMap((at) => DATA.series[at])).filter((value) => value !== null);
  const high = full ? 100 : ticks(0, Math.max(...values, 0.1), 3).at(-1) * 1.0 || 1;
  const roof = full ? 100 : Math.max(high, ...values);
  const epochs = there.flatMap(({ curve }) => DATA.series[curve.epochs]);
  const [first, last] = [Math.min(...epochs), Math.max(...epochs)];
  const x = (epoch) => left + ((epoch - first) / (last - first || 1)) * (width - left - 6);
  const y = (value) => height - bottom - (value / roof) * (height - bottom - top);
  const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
  for (const at of full ? [0, 50, 100] : ticks(0, roof, 3)) {
    figure.append(svg("line", { class: "grid", x1: left, x2: width - 6, y1: y(at), y2: y(at) }),
      svg("text", { class: "tick", x: left - 5, y: y(at) + 4, "text-anchor": "end" }, num(at, { digits: decimals(at) })));
  }
  figure.append(svg("text", { class: "tick", x: left, y: height - 5 }, `epoch ${first}`), svg("text", { class: "tick", x: width - 6, y: height - 5, "text-anchor": "end" }, String(last)));
  for (const { curve, metric, kind } of there) {
    const at = DATA.series[curve.epochs];
    const [mean, low, high] = curve[metric].map((place) => DATA.series[place]);
    const points = (line) => line.map((value, n) => (value === null ? undefined : [x(at[n]), y(value)])).filter(Boolean);
    if (low && kind !== "twin") figure.append(svg("path", { class: `band ${kind}`, d: `M${points(low).join("L")}L${points(high).reverse().join("L")}Z` }));
    const drawn = points(mean);
    figure.append(drawn.length > 1 ? svg("path", { class: `curve ${kind}`, d: `M${drawn.join("L")}` }) : svg("circle", { class: `dot ${kind}`, cx: drawn[0][0], cy: drawn[0][1], r: 3 }));
  }
  return figure;
}
