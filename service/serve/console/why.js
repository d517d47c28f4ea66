// "Why, and since when": what decided about the row, and how the answer to it changed over the events.
import { $, S, bold, className, color, colorKey, el, fill, fillEmpty, hue, largest, percent, signed, whole } from "./page.js";
import { addLayer, axis, setView } from "./axis.js";
import { addChart } from "./chart.js";

const FEATURES = 6;
const LINES = 12; // classes with a line of their own: the most probable at some event
const KEY_MIN = .15; // a class that was never more probable is not in the key
const MOVES = 3;
const MOVE_MIN = .02;
let classes = [], columns = []; // those with a line, and the probabilities of all

// Show what decided about the row that was put in with `input`.
export function drawReasons(input) {
	if (!S.answer) return fillEmpty("reasons", "Once there is a row, this shows what decided, and how the answer changed with every event.");
	const { contributions, sensitivities, probabilities, top } = S.answer, { meta } = S, [first, second] = largest(probabilities, 2), isSum = Boolean(contributions);
	const M = contributions ?? sensitivities, isAlone = meta.head === "multilabel" || second === undefined;
	// With one logit for two classes, what adds to the second is missing from the first.
	const own = M[first] && (M.length > 1 || isAlone) ? M[first] : M[0].map((v) => first ? v : -v);
	const effects = isAlone || M.length === 1 ? own : own.map((v, i) => v - M[second][i]);
	// A wide model lists its top features alone, in that order, and one of sparse rows those that the row has.
	const isWhole = effects.length === meta.features.length, features = isWhole ? [...effects.keys()] : top.map(({ index }) => index), names = isWhole ? meta.features : top.map(({ feature }) => feature), isPad = input.kind === "pad";
	const scaled = isSum || isPad ? effects : effects.map((v, i) => v * (!meta.fields && S.drift?.training?.scale[features[i]] || 1));
	const meaning = isPad ? (isSum ? "green ink speaks for it, red ink against it." : "more ink on green would speak for it, on red against it.")
		: isSum ? `what each feature adds to ${isAlone ? "its logit" : "the difference"}.` : "what one spread more of each feature would change.";
	const text = el("p", {}, "For ", bold(className(first)), ...(isAlone ? [] : [" rather than ", bold(className(second))]), `: ${meaning}`);
	return fill("reasons", ...(isPad ? [pixelMap(scaled, features, input, first), text] : [el("div", { class: "grow" }, text, featureBars(scaled, names))]));
}

function pixelMap(effects, features, { rows, columns, pixels }, first) {
	const side = 16, canvas = el("canvas", { width: columns * side, height: rows * side, role: "img", "aria-label": `Pixels that speak for ${className(first)}` });
	const context = canvas.getContext("2d"), most = Math.max(...effects.map(Math.abs)) || 1, [heat, hot] = ["heat", "hot"].map(color);
	effects.forEach((v, i) => {
		const [row, column] = pixels[features[i]];
		context.globalAlpha = Math.abs(v) / most;
		context.fillStyle = v > 0 ? heat : hot;
		context.fillRect(column * side, row * side, side - .5, side - .5);
	});
	return canvas;
}

function featureBars(effects, names) {
	const sizes = effects.map(Math.abs), most = Math.max(...sizes) || 1;
	return el("div", { class: "effects" }, ...largest(sizes, FEATURES).filter((i) => sizes[i] || !S.meta.fields).flatMap((i) => {
		const name = names[i], w = sizes[i] / most / 2, isFor = effects[i] > 0;
		return [el("span", { class: "name", title: name }, name), el("span", { class: isFor ? "effect for" : "effect" }, el("i", { vars: { x: isFor ? .5 : .5 - w, w } })), el("span", {}, signed(effects[i]))];
	}));
}

export const buildTrajectory = () => addChart($("trajectory"), () => ({
	seq: S.trajectory?.seq ?? [], lines: classes.map((k) => ({ values: columns[k], color: hue(k, S.meta.classes.length) })),
}), { hasSeq: true, low: () => 0 });

// Show how the answer to the row changed, and where most.
export function drawTrajectory() {
	const { trajectory, meta } = S;
	$("since").hidden = !(trajectory?.seq.length > 1);
	if ($("since").hidden) return;
	const { seq, probabilities } = trajectory;
	columns = meta.classes.map((_, k) => probabilities.map((P) => P[k] ?? 0));
	const peaks = columns.map((column) => Math.max(...column));
	classes = largest(peaks, LINES).sort((a, b) => a - b);
	fill("since-key", ...colorKey(classes.filter((k) => peaks[k] > KEY_MIN)));
	const moves = seq.slice(1).map((_, i) => {
		const sizes = columns.map((column) => Math.abs(column[i + 1] - column[i])), [k] = largest(sizes, 1);
		return { i, k, size: sizes[k] };
	}).filter(({ size }) => size > MOVE_MIN).sort((a, b) => b.size - a.size).slice(0, MOVES);
	fill("moves", ...moves.map(({ i, k }) => {
		const [was, is] = columns[k].slice(i, i + 2);
		return el("li", {}, el("button", { onclick: () => axis.onPick(seq[i + 1]) }, el("span", { class: "muted" }, `events ${whole(seq[i] + 1)}–${whole(seq[i + 1])}`),
			el("span", {}, `${className(k)} ${percent(was, 0)} → ${percent(is, 0)} `, el("b", { class: is > was ? "up" : "down", "aria-hidden": "true" }, is > was ? "▲" : "▼"))));
	}));
	setView(axis.view);
}
addLayer($("trajectory-area"));
