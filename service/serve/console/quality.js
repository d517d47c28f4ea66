// How good the model is: headline, tiles, confusion and reliability.
import { $, S, bold, className, count, el, fill, fillEmpty, fullName, largest, number, percent, rate, say, sum, time, whole } from "./page.js";

const TABLE_MAX = 24; // a table of more classes would not fit; then the commonest mistakes are listed
const COUNTED_MAX = 32; // the service counts mistakes for up to so many classes
const MISTAKES = 20;
const BARELY = .01; // confidence and accuracy that differ by less agree

// Whether what was learned makes a difference: the paired difference of both answers is at least two standard errors.
function differs({ accuracy, frozen_accuracy, both, frozen_rows }) {
	const difference = accuracy - frozen_accuracy, discordant = accuracy + frozen_accuracy - 2 * both;
	return difference !== 0 && Math.abs(difference) >= 2 * Math.sqrt(Math.max(0, discordant - difference ** 2) / frozen_rows);
}
const upTo = (quality) => S.head === null ? "" : ` up to event ${whole(quality.seq ?? S.head)}`;

export function drawHeadline() {
	const { meta, quality, head } = S, verb = head === null ? "is" : "was", name = el("em", {}, fullName()), frozen = quality?.frozen_accuracy;
	let text = [` ${verb} as it was trained. No row had been scored yet.`], note = [];
	document.body.classList.toggle("fresh", !meta.seq);
	if (!meta.seq) {
		const held = meta.metrics?.accuracy;
		text = [" is as it was trained. Nothing has been learned yet."];
		note = [`${held == null ? "" : `On rows held out from its training it was right ${percent(held)} of the time. `}Teach it one row below, or send feedback, and its history begins here.`];
	} else if (quality?.rows) {
		const than = differs(quality) ? ". Never taught, it would be " : ". So far no different from never taught, ", at = S.pulse?.published_seconds ?? meta.published_seconds;
		text = [` ${verb} right `, el("em", {}, percent(quality.accuracy)), " of the time", ...(frozen == null ? [] : [than, el("s", {}, percent(frozen))]), "."];
		note = [`Over the last ${count(quality.rows, "labeled row")}${upTo(quality)}, each scored before it was learned.`, ...(at && head === null ? [" Last learned ", time(1000 * at), "."] : [])];
	}
	fill("headline", name, ...text);
	fill("subline", ...note);
}

// Show the tiles. `traffic` has the rates of the last second; without it those of before stay.
let rates = null;
export function drawTiles(traffic = rates) {
	rates = traffic;
	const now = S.pulse ?? S.meta, lag = now?.lag_events;
	const tiles = [["Event", whole(S.head ?? now?.seq), ""], ["Loss, last 1,000", number(S.quality?.loss), ""], ["Behind", whole(lag), lag === 1 ? "event" : "events"],
		["Predictions", rate(traffic?.requests), "/s"], ["99 % within", traffic?.p99 == null ? "–" : number(1000 * traffic.p99), "ms"], ["Taught", rate(traffic?.events), "/s"]];
	if (!$("tiles").children.length) fill("tiles", ...tiles.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span"), el("small")))));
	tiles.forEach(([, ...texts], i) => texts.forEach((text, j) => say($("tiles").children[i].lastChild.children[j], text)));
}

export function drawConfusion() {
	const { quality, meta } = S, counts = quality?.confusion, K = meta.classes.length;
	say($("rows-counted"), quality?.rows ? `last ${count(quality.rows, "row")}${upTo(quality)}` : "");
	say($("commonest"), "");
	if (!quality?.rows || !counts) {
		return fillEmpty("confusion", meta.head === "multilabel" ? "A row can have several labels, so there is no table of mistakes." : K > COUNTED_MAX ? `Mistakes are counted for models of up to ${COUNTED_MAX} classes.` : "No labeled rows yet.");
	}
	const wrong = counts.flatMap((row, i) => row.map((n, j) => i === j ? 0 : n));
	const worst = largest(wrong, MISTAKES).filter((cell) => wrong[cell]).map((cell) => [bold(className(Math.floor(cell / K))), " taken for ", bold(className(cell % K)), `, ${count(wrong[cell], "time")}`]);
	fill("confusion", K > TABLE_MAX ? el("ol", {}, ...worst.map((mistake) => el("li", {}, ...mistake))) : confusionTable(counts));
	return K > TABLE_MAX && worst.length ? undefined : fill("commonest", ...(worst.length ? ["Most often: ", ...worst[0], "."] : ["No mistake in these rows."]));
}

function confusionTable(counts) {
	const th = (scope, text) => el("th", { scope, title: text }, text), names = counts.map((_, k) => className(k));
	const rows = counts.map((row, i) => {
		const all = sum(row), cells = row.map((n, j) => {
			const share = n / (all || 1), isMost = i === j && share > .7;
			const alpha = i !== j ? Math.min(.13 + 1.6 * share, .5) : isMost ? .88 + .4 * (share - .7) : .12 + .46 * share;
			return el("td", { class: !n ? "zero" : i !== j ? "wrong" : isMost ? "most" : "", vars: { alpha: `${100 * alpha}%` }, title: `${n} of ${count(all, "row")} of ${names[i]} answered ${names[j]}` }, n || "");
		});
		return el("tr", {}, th("row", names[i]), ...cells, el("td", { class: "recall" }, all ? percent(row[i] / all, 0) : "–"));
	});
	return el("table", { class: "confusion", vars: { cell: `${Math.min(64, Math.max(31, 260 / counts.length))}px` } },
		el("caption", { class: "unseen" }, "Rows: the label. Columns: the answer. Empty: no row."),
		el("thead", {}, el("tr", {}, ...["label", ...names, "found"].map((text) => th("col", text)))), el("tbody", {}, ...rows));
}

export function drawReliability() {
	const { rows, bins, expected_error: error } = S.quality?.calibration ?? {};
	say($("reliability-note"), "");
	if (!rows) return fillEmpty("reliability", "No labeled rows yet.");
	const used = bins.filter((bin) => bin.rows), excess = sum(used.map((bin) => bin.rows * (bin.confidence - bin.accuracy))) / rows;
	fill("reliability", diagram(used, `${percent(error)} off on average, over ${count(rows, "row")}`));
	const verdict = Math.abs(excess) < BARELY ? "As sure as it is right" : excess > 0 ? "It is surer than it is right" : "It is right more often than it is sure";
	return fill("reliability-note", verdict, ", off by ", bold(percent(error)), " on average. A dot is larger the more rows it holds.");
}

function diagram(bins, text) {
	const x = (v) => 40 + 364 * v, y = (v) => 270 - 254 * v, most = Math.max(...bins.map(({ rows }) => rows));
	const line = (kind, x1, y1, x2, y2) => el("svg:line", { class: kind, x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2) });
	const label = (at, left, top, anchor) => el("svg:text", { x: left, y: top, "text-anchor": anchor }, at);
	return el("svg:svg", { viewBox: "0 0 420 300", role: "img", "aria-label": text },
		...[0, .25, .5, .75, 1].flatMap((v) => [line("grid", 0, v, 1, v), label(`${100 * v} %`, 32, y(v) + 4, "end"), ...(v ? [label(v === 1 ? "100 % sure" : `${100 * v} %`, x(v), 290, v === 1 ? "end" : "middle")] : [])]),
		line("ideal", 0, 0, 1, 1),
		...bins.flatMap(({ rows, confidence, accuracy }) => [line(accuracy < confidence ? "over" : "", confidence, confidence, confidence, accuracy),
			el("svg:circle", { cx: x(confidence), cy: y(accuracy), r: 3.5 + 11 * Math.sqrt(rows / most) }, el("svg:title", {}, `${count(rows, "row")}: ${percent(confidence)} sure, ${percent(accuracy)} right`))]));
}
