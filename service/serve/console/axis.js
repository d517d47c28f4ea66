// The one x-axis of the page, seq: charts and strips share its zoom, its cursor and its playhead.
import { el, isNarrow, setVars } from "./page.js";

const CLICK_PIXELS = 4; // between pressing and releasing, the mouse moves by less in a click than in a selection

// `view` is what the reader zoomed into. `paints` draw the canvases; those of charts again when the cursor moves.
// The timeline sets `onView`, `onHover` and `onPick`.
export const axis = { min: 0, max: 1, view: null, cursor: null, paints: [], layers: [] };
const gutters = () => isNarrow() ? [40, 6] : [52, 12];
export const range = () => axis.view ?? [axis.min, Math.max(axis.max, axis.min + 1)];
export const share = (seq) => (seq - range()[0]) / (range()[1] - range()[0]);
export const paintAll = () => axis.paints.forEach(({ paint }) => paint());

export function setView(view) {
	axis.view = view;
	paintAll();
	axis.onView();
}

// Lay marks over an area: shaded spans and dashed lines, then the cursor, the playhead and the selection.
export function addLayer(node) {
	const layer = Object.fromEntries(["marks", "cursor", "head", "selection"].map((name) => [name, el("i", { class: name, hidden: name !== "marks" })]));
	node.append(el("div", { class: "layer", "aria-hidden": "true" }, ...Object.values(layer)));
	axis.layers.push(layer);
}
const vars = (start, end) => ({ x: share(start), w: share(end) - share(start) });
export function setMarks(marks) {
	for (const layer of axis.layers) layer.marks.replaceChildren(...marks.map(([kind, start, end]) => el("i", { class: kind, vars: vars(start, end) })));
}
export function place(name, start, end = start) {
	for (const { [name]: mark } of axis.layers) {
		mark.hidden = start === null || !(share(start) >= 0 && share(end) <= 1);
		setVars(mark, vars(start, end));
	}
}
function hover(seq) {
	axis.cursor = seq;
	place("cursor", seq);
	axis.paints.forEach(({ paint, isChart }) => isChart && paint());
	axis.onHover(seq);
}

// Add a canvas along the axis. `draw` gets its context, the x of a seq, its height and the pixel ratio, all in device
// pixels; what it returns draws beside the area. `onMove` gets the seq below the mouse, and the share of the height.
export function addCanvas(canvas, draw, { onMove, isChart } = {}) {
	let pressed = null;
	const seqAt = ({ offsetX }) => {
		const [left, right] = gutters(), [a, b] = range();
		return Math.min(b, Math.max(a, a + (b - a) * (offsetX - left) / (canvas.clientWidth - left - right)));
	};
	const selection = (event) => [pressed.seq, seqAt(event)].sort((a, b) => a - b).map(Math.round);
	const isClick = (event) => Math.abs(event.offsetX - pressed.x) < CLICK_PIXELS;
	canvas.onmousedown = (event) => {
		pressed = { x: event.offsetX, seq: seqAt(event) };
		event.preventDefault();
	};
	canvas.onmousemove = (event) => {
		hover(seqAt(event));
		onMove?.(axis.cursor, event.offsetY / canvas.clientHeight);
		if (pressed) place("selection", ...(isClick(event) ? [null] : selection(event)));
	};
	canvas.onmouseup = (event) => {
		if (pressed && isClick(event)) axis.onPick(pressed.seq);
		else if (pressed && selection(event)[0] < selection(event)[1]) setView(selection(event));
		pressed = null;
		place("selection", null);
	};
	canvas.onmouseleave = () => {
		pressed = null;
		place("selection", null);
		hover(null);
	};
	canvas.ondblclick = () => setView(null);
	function paint() {
		const ratio = devicePixelRatio, [left, right] = gutters().map((size) => size * ratio), context = canvas.getContext("2d");
		canvas.width = canvas.clientWidth * ratio;
		canvas.height = canvas.clientHeight * ratio;
		const inner = Math.max(0, canvas.width - left - right);
		context.save();
		context.beginPath();
		context.rect(left, 0, inner, canvas.height);
		context.clip();
		const drawBeside = draw(context, (seq) => left + inner * share(seq), canvas.height, ratio);
		context.restore();
		drawBeside?.(left - 8 * ratio);
	}
	axis.paints.push({ canvas, paint, isChart });
	return paint;
}
