// A row by hand: a form of the fields, a pad to draw on where features are the pixels of an image, else sliders.
import { SPREADS, makeForm, rounded } from "./form.js";
import { el, fill, setVars } from "./page.js";

const BLOCK = 4; // ink is counted in blocks of 4 x 4 cells, as the digits were made
const INK = BLOCK * BLOCK;
const PEN = 3.5; // the width of the pen, in cells
const SCALE = 16; // pixels of the pad for a cell
const OPAQUE = 128; // a cell counts if half of it is covered

// Return the input for a model, with `kind`, `set(values)` and `clear()`. `changed(row)` is called after each change,
// with null for an empty pad.
export function makeInput(meta, training, changed) {
	if (meta.fields) return makeForm(meta.fields, changed);
	const pixels = meta.features.map((name) => /^pixel_(\d+)_(\d+)$/.exec(name)?.slice(1).map(Number));
	return pixels.every(Boolean) ? makePad(pixels, changed) : makeSliders(meta.features, training, changed);
}

// `pixels` has the row and column of each feature. Strokes go to the pad, and to a hidden canvas of cells.
function makePad(pixels, changed) {
	const [rows, columns] = [0, 1].map((axis) => 1 + Math.max(...pixels.map((pixel) => pixel[axis])));
	const canvas = (scale, props) => el("canvas", { width: columns * scale, height: rows * scale, ...props });
	const pad = canvas(BLOCK * SCALE, { id: "pad", tabindex: 0, role: "application", "aria-label": `Drawing pad of ${rows} by ${columns} pixels. Arrow keys move, Space inks, Backspace clears.` });
	const cells = canvas(BLOCK), small = canvas(1, { "aria-hidden": "true" }), frame = el("div", { class: "pad", vars: { columns, rows } }, pad, el("i"));
	const shown = pad.getContext("2d"), counted = cells.getContext("2d", { willReadFrequently: true }), both = [shown, counted];
	let pasted = null, at = [0, 0], last;
	shown.scale(SCALE, SCALE);
	both.forEach((context) => Object.assign(context, { lineWidth: PEN, lineCap: "round" }));

	const squares = (context, values, side) => values.forEach((value, j) => {
		context.globalAlpha = Math.min(1, Math.max(0, value / INK));
		context.fillRect(pixels[j][1] * side, pixels[j][0] * side, side, side);
	});
	const inked = (row, column) => {
		const { data } = counted.getImageData(column * BLOCK, row * BLOCK, BLOCK, BLOCK);
		return data.filter((value, i) => i % 4 === 3 && value >= OPAQUE).length;
	};
	function finish() {
		const row = pasted ?? pixels.map((pixel) => inked(...pixel)), context = small.getContext("2d");
		context.clearRect(0, 0, columns, rows);
		squares(context, row, 1);
		changed(row.some(Boolean) ? row : null);
	}
	function clear(values = null) {
		pasted = values;
		both.forEach((context) => context.clearRect(0, 0, cells.width, cells.height));
	}
	function stroke({ offsetX, offsetY }) {
		const to = [offsetX / pad.clientWidth * cells.width, offsetY / pad.clientHeight * cells.height];
		if (pasted) clear();
		for (const context of both) {
			context.beginPath();
			context.moveTo(...last ?? to);
			context.lineTo(...to);
			context.stroke();
		}
		last = to;
		finish();
	}
	pad.onpointerdown = (event) => {
		pad.setPointerCapture(event.pointerId);
		last = null;
		stroke(event);
	};
	pad.onpointermove = (event) => event.buttons && stroke(event);
	pad.onkeydown = (event) => {
		const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0], [row, column] = at;
		at = [Math.min(rows - 1, Math.max(0, row + down)), Math.min(columns - 1, Math.max(0, column + right))];
		setVars(frame, { row: at[0], column: at[1] });
		if (event.key === " ") {
			if (pasted) clear();
			const draw = inked(row, column) ? "clearRect" : "fillRect";
			both.forEach((context) => context[draw](column * BLOCK, row * BLOCK, BLOCK, BLOCK));
		} else if (event.key === "Backspace") clear();
		else if (!down && !right) return;
		event.preventDefault();
		if (!down && !right) finish();
	};
	const br = () => el("br");
	fill("input", frame, el("div", { class: "seen" }, small, el("span", {}, "What the model sees:", br(), `${rows} × ${columns} pixels, 0 to ${INK}.`, br(), "Keys: arrows, Space.")));
	return {
		kind: "pad", pixels, rows, columns,
		clear() { clear(); finish(); },
		set(values) {
			clear(values);
			squares(shown, values, BLOCK);
			shown.globalAlpha = 1;
			finish();
		},
	};
}

function makeSliders(features, training, changed) {
	const row = features.map((_, j) => training?.mean[j] ?? 0), scales = row.map((_, j) => training?.scale[j] || 1), means = [...row];
	const outputs = row.map(() => el("output")), inputs = row.map((mean, j) => {
		const reach = SPREADS * scales[j];
		return el("input", { type: "range", min: mean - reach, max: mean + reach, step: "any", oninput: ({ target }) => { put(j, +target.value); changed([...row]); } });
	});
	function put(j, value) {
		row[j] = value;
		outputs[j].textContent = rounded(value, scales[j]);
	}
	// A value beyond the reach of its slider stays as it is.
	const set = (values) => {
		values.forEach((value, j) => {
			inputs[j].value = value;
			put(j, value);
		});
		changed([...row]);
	};
	fill("input", el("div", { class: "sliders" }, ...features.map((name, j) => el("label", {}, el("span", {}, name), outputs[j], inputs[j]))));
	set(means);
	return { kind: "sliders", set, clear: () => set(means) };
}
