// Tables as text to paste: CSV, LaTeX (booktabs), Markdown, and BibTeX of the methods that they show.

const FORMATS = { CSV: csv, LaTeX: latex, Markdown: markdown, BibTeX: bibtex };

// What a cell says, on one line; a mean with its interval.
function plainText(column, row) {
  if (column.text) return String(column.text(row));
  const value = column.of(row);
  if (value === null || value === undefined) return "–";
  if (column.kind === "estimate") return value[1] === null ? num(value[0], column) : `${num(value[0], column)} [${num(inside(value[1], column), column)}, ${num(inside(value[2], column), column)}]`;
  if (column.kind === "number") return num(value, column);
  return column.kind === "rank" ? row.place ?? "–" : String(value).replace(/\s+/g, " ");
}

// Numbers as they are, an interval in columns of its own.
function csv(columns, rows) {
  const quoted = (value) => { const text = value === null || value === undefined ? "" : String(value); return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const heads = columns.flatMap((c) => (c.kind === "estimate" ? [c.label, `${c.label} low`, `${c.label} high`] : [c.label]));
  const lines = rows.map((row) => columns.flatMap((c) => {
    if (c.kind === "estimate") return (c.of(row) ?? [null, null, null]).slice(0, 3);
    return [c.kind === "rank" ? row.place : c.kind === "number" || c.kind === "count" || c.kind === "bad" ? c.of(row) : plainText(c, row)];
  }));
  return [heads, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function latex(columns, rows) {
  const escaped = (text) => text.replace(/[\\{}$&#^_%~<>]/g, (c) => ({ "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}", "<": "\\textless{}", ">": "\\textgreater{}" })[c] ?? `\\${c}`).replaceAll("−", "$-$").replaceAll("–", "--");
  const line = (cells) => `${cells.map(escaped).join(" & ")} \\\\`;
  return [`% ${origin()}`, `\\begin{tabular}{${columns.map((c) => (c.kind === "text" || c.kind === "name" ? "l" : "r")).join("")}}`, "\\toprule", line(columns.map((c) => c.label)), "\\midrule",
    ...rows.map((row) => line(columns.map((c) => plainText(c, row)))), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function markdown(columns, rows) {
  const line = (cells) => `| ${cells.map((text) => text.replace(/[\\|<>*_`[\]]/g, "\\$&")).join(" | ")} |`;
  return [line(columns.map((c) => c.label)), `|${columns.map((c) => (c.kind === "text" || c.kind === "name" ? "---|" : "---:|")).join("")}`, ...rows.map((row) => line(columns.map((c) => plainText(c, row)))), "", `${origin()}`, ""].join("\n");
}

// The papers that the cards of the methods name; of a chain those of its parts.
function bibtex(columns, rows) {
  const methods = rows.flatMap((row) => ["attack", "defense"].flatMap((kind) => (typeof row[kind] === "string" ? parts(kind, row[kind]).map((part) => DATA.cards[kind][part]) : [])));
  const cited = new Set(methods.flatMap((card) => card.cited));
  return [...Array.from(cited, (key) => DATA.references[key]), `@misc{fedbench-leaderboard,\n  title = {{fedbench leaderboard}},\n  note = {${origin().replace(/[_%&#]/g, "\\$&")}}\n}\n`].join("\n");
}

function origin() {
  const { version, runs, digest } = DATA.about;
  return `fedbench ${version}, ${plural(runs, "run")}, data ${digest}`;
}

// Into the clipboard; where a browser has none for files, through a selection.
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
    const [home, focus] = [panel.open ? panel : document.body, document.activeElement];
    area.value = text;
    home.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focus?.focus();
  }
  document.getElementById("said").textContent = `Copied: ${what}.`;
}

function command(text) {
  return el("p", { class: "command" }, el("code", {}, text), el("button", { type: "button", class: "quiet", onclick: () => copy(text, text) }, "Copy"));
}

// A word as a shell takes it.
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
