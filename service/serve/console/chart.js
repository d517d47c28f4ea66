// Line charts along seq, each on a canvas.
import { color, number, percent, whole } from "./page.js";
import { addCanvas, axis, range } from "./axis.js";

const FONT = "Inter, ui-sans-serif, system-ui, sans-serif";
const LABEL_PIXELS = [80, 26]; // labels of an axis are at least so far apart, along x and y
const BELOW = 20; // room for the labels of the x-axis
const TOP = 8; // room for half a label of the y-axis

export function setFont(context, pixels, align) {
	Object.assign(context, { font: `${pixels}px ${FONT}`, fillStyle: color("muted"), textAlign: align, textBaseline: "middle", globalAlpha: 1 });
}
// Return round numbers in a range, at most so many: multiples of 1, 2 or 5 times a power of ten.
function ticks([a, b], most) {
	const power = 10 ** Math.floor(Math.log10((b - a) / most)), step = [1, 2, 5, 10].map((m) => m * power).find((size) => (b - a) / size <= most);
	return Array.from({ length: Math.floor(b / step) - Math.ceil(a / step) + 1 }, (_, i) => (Math.ceil(a / step) + i) * step);
}

// Add a chart. `read()` returns the seqs of the points, and lines of {values, color, width, dash}; a null is skipped.
// `isLog`: the y-axis has powers of ten. `hasSeq`: there are labels below. `low`: where shares begin; they end at 1.
// `isFilled`: the area between the first two lines is.
export function addChart(canvas, read, { isLog, hasSeq, isFilled, low }) {
	return addCanvas(canvas, (context, x, height, ratio) => {
		const { seq, lines } = read(), below = (hasSeq ? BELOW : TOP) * ratio, [a, b] = range();
		const first = Math.max(0, seq.findIndex((end) => end >= a) - 1), last = seq.findIndex((end) => end > b);
		const visible = [...seq.keys()].slice(first, last < 0 ? undefined : last + 1), scaled = (v) => isLog ? Math.log10(Math.max(v, 1e-9)) : v;
		const values = lines.flatMap((line) => visible.map((i) => line.values[i]).filter((v) => v !== null).map(scaled));
		const bottom = isLog ? Math.floor(Math.min(...values)) : low(Math.min(...values)), top = isLog ? Math.max(Math.ceil(Math.max(...values)), bottom + 1) : 1;
		const y = (v) => height - below - (scaled(v) - bottom) / (top - bottom) * (height - below - TOP * ratio);
		const marks = ticks([bottom, top], (height - below) / LABEL_PIXELS[1] / ratio).filter((v) => !isLog || v % 1 === 0).map((v) => isLog ? 10 ** v : v);
		if (!values.length) return undefined;
		context.fillStyle = color("grid");
		for (const mark of marks) context.fillRect(0, y(mark), context.canvas.width, ratio);
		const points = lines.map((line) => visible.filter((i) => line.values[i] !== null).map((i) => [x(seq[i]), y(line.values[i])]));
		if (isFilled) {
			context.fillStyle = color("live-fill");
			trace(context, [...points[0], ...points[1].toReversed()]);
			context.fill();
		}
		const at = axis.cursor === null ? -1 : seq.findIndex((end) => end >= axis.cursor);
		lines.forEach((line, k) => {
			Object.assign(context, { strokeStyle: line.color, fillStyle: line.color, lineWidth: (line.width ?? 2) * ratio, lineJoin: "round" });
			context.setLineDash((line.dash ?? []).map((length) => length * ratio));
			trace(context, points[k]);
			context.stroke();
			if (line.values[at] == null) return;
			context.beginPath();
			context.arc(x(seq[at]), y(line.values[at]), 3.5 * ratio, 0, 7);
			context.fill();
		});
		return (right) => {
			setFont(context, 11 * ratio, "right");
			for (const mark of marks) context.fillText(isLog ? number(mark) : percent(mark, 0), right, y(mark));
			context.textAlign = "center";
			const width = x(b) - x(a);
			if (hasSeq) for (const mark of ticks([a, b], width / LABEL_PIXELS[0] / ratio).filter((v) => v % 1 === 0)) context.fillText(whole(mark), Math.min(x(mark), x(b) - 12 * ratio), height - 7 * ratio);
		};
	}, { isChart: true });
}

function trace(context, points) {
	context.beginPath();
	points.forEach((point) => context.lineTo(...point));
}
