// "What it learned": charts, strips, flags of admin events, the playhead, and all their numbers as tables.
import { $, S, ago, bold, className, color, colorKey, el, fill, isNarrow, number, percent, say, setVars, table, whole } from "./page.js";
import { addLayer, axis, place, range, setMarks, setView, share } from "./axis.js";
import { addChart } from "./chart.js";
import { lines } from "./history.js";
import { addStrips } from "./strips.js";

const FLAG_ROWS = 3;
const KEY_MAX = 12; // more classes than these have no color key
let drawn; // the lines of the charts

const FLAGS = {
	rollback: ({ seq }) => `rolled back to ${whole(seq)}`,
	classes: ({ add }) => `+ class ${[add].flat().join(", ")}`,
	forget: ({ count }) => `forgot ${whole(count ?? 1)}`,
	correct: () => "corrected",
	configure: ({ paused, shadow, rule }) => paused != null ? (paused ? "paused" : "went on") : shadow != null ? `shadow ${shadow ? "on" : "off"}` : rule ? `rule ${rule}` : "configured",
};
const flagText = ({ kind, detail }) => FLAGS[kind]?.(detail ?? {}) ?? kind;

// Add the charts and strips again: for another model, or for a class more.
export function buildTimeline() {
	const read = (frozen, live) => () => ({ seq: S.history?.seq ?? [], lines: [
		{ values: drawn?.[frozen] ?? [], color: color("frozen"), width: 1.75, dash: [5, 4] }, { values: drawn?.[live] ?? [], color: color("live"), width: 2.25 }] });
	addChart($("loss"), read("frozenLoss", "loss"), { isLog: true, isFilled: true });
	addChart($("right"), read("frozenRight", "right"), { hasSeq: true, isFilled: true, low: (least) => Math.min(.9, Math.max(0, Math.floor(10 * least) / 10)) });
	addStrips();
}

export function drawTimeline() {
	const { history, meta } = S, K = meta.classes.length;
	fill("labels-key", ...(K <= KEY_MAX ? colorKey([...meta.classes.keys()]) : [`${whole(K)} classes`]));
	if (!history?.seq.length) return;
	drawn = lines(history);
	Object.assign(axis, { min: history.from, max: Math.max(meta.seq, history.until) });
	setView(axis.view);
	if (!$("tables").hidden) drawTables();
}

function drawFlags() {
	const width = $("flags").clientWidth, ends = Array(isNarrow() ? 0 : FLAG_ROWS).fill(-Infinity), [a, b] = range();
	const shown = S.flags.filter(({ seq }) => seq >= a && seq <= b).reverse();
	fill("flags", ...shown.map((event) => {
		const text = flagText(event), x = share(event.seq) * width, half = 9 + 3.1 * Math.min(text.length, 28), row = ends.findIndex((end) => x - half > end + 4);
		if (row >= 0) ends[row] = x + half;
		const shift = x + half > width + 12 ? "-85%" : x < half ? "-15%" : "-50%", name = `Event ${whole(event.seq)}: ${text}`;
		return el("button", { class: row < 0 ? "small" : "", vars: { x: share(event.seq), row: Math.max(0, row), shift },
			title: `${name}, ${ago(event.time_ms)}`, "aria-label": `${name}. Go to the event before.`, onclick: () => axis.onPick(event.seq - 1) }, text);
	}));
	setVars($("timeline"), { "flag-rows": Math.max(1, ends.filter((end) => end > 0).length) });
	setMarks([
		...S.flags.filter(({ kind, detail }) => kind === "rollback" && detail).map(({ seq, detail }) => ["undone", detail.seq, seq]),
		...S.forgotten.map(([first, last]) => ["gone", first - 1, last]), ...shown.map(({ seq }) => ["flag", seq, seq]),
	]);
}

export function drawPlayhead() {
	const [min, max] = range(), { head } = S, value = head ?? max, isPast = head !== null;
	Object.assign($("playhead"), { min, max, value });
	setVars($("playhead"), { p: Math.min(1, Math.max(0, share(value))) });
	$("playhead").setAttribute("aria-valuetext", `event ${whole(value)}${isPast ? "" : ", now"}`);
	place("head", head);
	$("now").hidden = !isPast;
	$("show-all").hidden = !axis.view;
	if (isPast) fill("at", "The whole page shows the model as it was after event ", bold(whole(head)));
	else say($("at"), "Showing now. Drag the handle, or click a chart, to see the model as it was.");
	for (const chip of document.querySelectorAll(".past")) say(chip, isPast ? `as it was at event ${whole(head)}` : "");
}

function readOut(seq) {
	const i = seq === null ? -1 : S.history?.seq.findIndex((end) => end >= seq) ?? -1;
	if (i < 0) return say($("readout"), "");
	const versus = (v, text) => v === null ? "" : ` vs ${text}`, { loss, right, frozenLoss, frozenRight } = drawn;
	return fill("readout", "event ", bold(whole(S.history.seq[i])), " · loss ", bold(number(loss[i])), versus(frozenLoss[i], number(frozenLoss[i])),
		" · right ", bold(percent(right[i], 0)), versus(frozenRight[i], percent(frozenRight[i], 0)));
}

// Show the numbers of all charts along seq.
function drawTables() {
	const { history, drift, meta, trajectory } = S, { seq, rows, labels, found } = history, tables = [];
	const add = (caption, heads, seqs, cells) => tables.push(table(caption, ["Event", ...heads], seqs.map((end, i) => [whole(end), ...cells(i)])));
	add("Loss and share right, over the last 200 rows", ["Rows", "Loss", "Artifact's loss", "Right", "Artifact right"], seq,
		(i) => [whole(rows[i]), number(drawn.loss[i]), number(drawn.frozenLoss[i]), percent(drawn.right[i]), percent(drawn.frozenRight[i])]);
	if (labels?.length) add("Rows answered right, of the rows with each label", labels[0].map((_, k) => className(k)), seq, (i) => labels[i].map((n, k) => `${found[i][k]} of ${n}`));
	if (drift?.shift && drift.names.length) add("Feature shift from training, in standard deviations", drift.names, drift.seq, (i) => (drift.shift[i] ?? []).map((v) => v?.toFixed(2) ?? "–"));
	for (const what of ["missing", "unknown"]) {
		const part = drift?.[what];
		if (part?.shares && part.names.length) add(`Rows whose value is ${what}, by field`, part.names, drift.seq, (i) => (part.shares[i] ?? []).map((v) => percent(v)));
	}
	if (trajectory) add("What the model would have said of the row", meta.classes, trajectory.seq, (i) => trajectory.probabilities[i].map((p) => percent(p)));
	fill("tables", ...tables);
}

addLayer($("timeline"));
Object.assign(axis, { onView: () => { drawFlags(); drawPlayhead(); }, onHover: readOut });
$("playhead").oninput = ({ target }) => axis.onPick(+target.value);
$("now").onclick = () => axis.onPick(null);
$("show-all").onclick = () => setView(null);
$("show-table").onclick = ({ target }) => {
	$("tables").hidden = !$("tables").hidden;
	target.setAttribute("aria-expanded", !$("tables").hidden);
	if (!$("tables").hidden && S.history) drawTables();
};
