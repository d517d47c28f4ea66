// The strips below the charts: share found of each class, balance of labels, and shift of features.
import { $, S, color, hue, isNarrow, percent, say, sum, whole } from "./page.js";
import { addCanvas, range } from "./axis.js";
import { setFont } from "./chart.js";
import { spans } from "./history.js";

const LANES_MAX = 24; // more classes would be too thin to read
const SPREADS = [0.3, 2]; // a smaller shift is not drawn, a larger one has the full color
const SHARE_MIN = .02; // nor is a smaller share of missing or unknown values

// Sums over buckets of a column that has one number for each class.
const totals = (column, first, last) => column[0].map((_, k) => sum(column.slice(first, last).map((counts) => counts[k] ?? 0)));

function drawRecall(context, x, height, ratio) {
	const { history, meta } = S, lane = height / meta.classes.length, [heat, hot, none] = ["heat", "hot", "soft"].map(color);
	for (const [first, last, start, end] of spans(history, range())) {
		const found = totals(history.found, first, last);
		totals(history.labels, first, last).forEach((n, k) => {
			const paint = (fill, alpha) => {
				context.fillStyle = fill;
				context.globalAlpha = alpha;
				context.fillRect(x(start), k * lane, x(end) - x(start) - ratio, lane - ratio);
			};
			const distance = 2 * found[k] / n - 1; // from -1, none found, to 1, all of them
			paint(none, 1);
			if (n) paint(distance < 0 ? hot : heat, distance < 0 ? .15 - .75 * distance : .05 + .8 * distance ** 1.7);
		});
	}
	return (right) => {
		setFont(context, Math.min(10.5 * ratio, lane), "right");
		meta.classes.forEach((name, k) => context.fillText(name.length > 8 ? `${name.slice(0, 7)}…` : name, right, (k + .5) * lane, right));
	};
}

function drawLabels(context, x, height, ratio) {
	for (const [first, last, start, end] of spans(S.history, range())) {
		const labels = totals(S.history.labels, first, last), all = sum(labels);
		let y = 0;
		labels.forEach((n, k) => {
			context.fillStyle = hue(k, labels.length);
			context.fillRect(x(start), y, x(end) - x(start) - ratio, n / all * height);
			y += n / all * height;
		});
	}
}

// Return the lanes of the drift: the shift of each feature or number, then by field the shares of missing and of unknown
// values. A lane has the value of bucket i, and says how strong its color is and what it means.
function lanesOf({ names, shift, missing, unknown }) {
	const shifts = names.map((name, j) => ({
		at: (i) => shift[i]?.[j], strength: (v) => Math.abs(v) < SPREADS[0] ? 0 : Math.abs(v) / SPREADS[1],
		text: (v) => `${name} ${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(1)} spreads from its training mean`,
	}));
	const shares = [[missing, "missing"], [unknown, "unknown"]].flatMap(([part, what]) => part?.names.map((name, j) => ({
		at: (i) => part.shares[i]?.[j], strength: (v) => v < SHARE_MIN ? 0 : Math.sqrt(v), text: (v) => `${name} ${what} in ${percent(v, 0)} of the rows`,
	})) ?? []);
	return [...shifts, ...shares];
}

function drawDrift(context, x, height) {
	const { seq, bucket, from } = S.drift, [hot, cold, none] = ["hot", "cold", "soft"].map(color), lanes = lanesOf(S.drift), lane = height / lanes.length;
	context.fillStyle = none;
	context.fillRect(0, 0, context.canvas.width, height);
	seq.forEach((end, i) => lanes.forEach(({ at, strength }, j) => {
		const v = at(i), start = x(from + i * bucket);
		if (v == null || !strength(v)) return;
		context.globalAlpha = Math.min(strength(v), 1);
		context.fillStyle = v > 0 ? hot : cold;
		context.fillRect(start, j * lane, x(end) - start + .6, lane + .4);
	}));
}

function readDrift(seq, y) {
	const i = S.drift.seq.findIndex((end) => end >= seq), lanes = lanesOf(S.drift), n = lanes.length, { at, text } = lanes[Math.min(n - 1, Math.max(0, Math.floor(y * n)))], v = at(i);
	if (v != null) say($("readout"), `event ${whole(S.drift.seq[i])} · ${text(v)}`);
}

// Add the strips that have data, and hide the others.
export function addStrips() {
	const { history, drift, meta } = S, K = meta.classes.length, hasLabels = Boolean(history?.labels?.length);
	$("recall").style.height = `${Math.max(36, 10 * K)}px`;
	$("drift").style.height = `${Math.min(120, Math.max(isNarrow() ? 48 : 56, 1.2 * (drift?.shift ? lanesOf(drift).length : 0)))}px`;
	for (const [name, isShown, draw, onMove] of [["recall", hasLabels && K <= LANES_MAX, drawRecall], ["labels", hasLabels, drawLabels], ["drift", drift?.shift, drawDrift, readDrift]]) {
		$(`${name}-row`).hidden = !isShown;
		if (isShown) addCanvas($(name), draw, { onMove });
	}
}
