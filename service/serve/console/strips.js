// The strips below the charts: share found of each class, balance of labels, and shift of features.
import { $, S, color, hue, isNarrow, say, sum, whole } from "./page.js";
import { addCanvas, range } from "./axis.js";
import { setFont } from "./chart.js";
import { spans } from "./history.js";

const LANES_MAX = 24; // more classes would be too thin to read
const SPREADS = [0.3, 2]; // a smaller shift is not drawn, a larger one has the full color

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

function drawDrift(context, x, height) {
	const { seq, bucket, from, shift } = S.drift, [hot, cold, none] = ["hot", "cold", "soft"].map(color);
	context.fillStyle = none;
	context.fillRect(0, 0, context.canvas.width, height);
	shift.forEach((features, i) => features?.forEach((v, j) => {
		if (Math.abs(v) < SPREADS[0]) return;
		const start = x(from + i * bucket), lane = height / features.length;
		context.globalAlpha = Math.min(Math.abs(v) / SPREADS[1], 1);
		context.fillStyle = v > 0 ? hot : cold;
		context.fillRect(start, j * lane, x(seq[i]) - start + .6, lane + .4);
	}));
}

function readDrift(seq, y) {
	const i = S.drift.seq.findIndex((end) => end >= seq), n = S.drift.names.length, j = Math.min(n - 1, Math.max(0, Math.floor(y * n))), v = S.drift.shift[i]?.[j];
	if (v != null) say($("readout"), `event ${whole(S.drift.seq[i])} · ${S.drift.names[j]} ${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(1)} spreads from its training mean`);
}

// Add the strips that have data, and hide the others.
export function addStrips() {
	const { history, drift, meta } = S, K = meta.classes.length, hasLabels = Boolean(history?.labels?.length);
	$("recall").style.height = `${Math.max(36, 10 * K)}px`;
	$("drift").style.height = `${Math.min(120, Math.max(isNarrow() ? 48 : 56, 1.2 * (drift?.names.length ?? 0)))}px`;
	for (const [name, isShown, draw, onMove] of [["recall", hasLabels && K <= LANES_MAX, drawRecall], ["labels", hasLabels, drawLabels], ["drift", drift?.shift, drawDrift, readDrift]]) {
		$(`${name}-row`).hidden = !isShown;
		if (isShown) addCanvas($(name), draw, { onMove });
	}
}
