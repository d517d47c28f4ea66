// A row with fields by hand: a control for each field, and a box that says whether its value is missing.
import { el, fill } from "./page.js";

export const SPREADS = 3; // a slider reaches so many standard deviations from the mean
const DIGITS_MAX = 8; // of a slider's value, after the point

// A number as text, to a hundredth of its spread; a small negative number is not "-0".
export function rounded(value, scale) {
	const digits = Math.min(DIGITS_MAX, Math.max(0, 2 - Math.floor(Math.log10(scale))));
	return (+value.toFixed(digits) || 0).toFixed(digits);
}
export const splitNumbers = (text) => text.replace(/[[\]]/g, " ").split(/[\s,;]+/).filter(Boolean);

// A control has `nodes`, the first of them labeled, `start`, a value to begin with, and `show(value)`, which may be of
// another kind, or null. `put(value)` is called after each edit. What is not of the kind goes to the service, which says so.
function makeNumber({ name, mean, scale }, props, put) {
	const start = +rounded(mean, scale), reach = SPREADS * scale, isScaled = mean !== 0 || scale !== 1;
	const entry = el("input", { ...props, type: "number", step: "any", oninput: () => {
		slider.value = entry.value || start;
		put(entry.value ? +entry.value : null);
	} });
	const slider = el("input", { type: "range", min: mean - reach, max: mean + reach, step: "any", "aria-label": `Slider of ${name}`, oninput: () => {
		entry.value = rounded(+slider.value, scale);
		put(+entry.value);
	} });
	return { nodes: isScaled ? [entry, slider] : [entry], start, show: (value) => {
		entry.value = Number.isFinite(value) ? value : "";
		slider.value = entry.value || start;
	} };
}
function makeSwitch(_, props, put) {
	const box = el("input", { ...props, type: "checkbox", role: "switch", onchange: () => put(box.checked) });
	return { nodes: [box], start: false, show: (value) => Object.assign(box, { checked: value === true, indeterminate: value === null }) };
}
function makeChoice({ values }, props, put) {
	const choices = [...values], choice = el("select", { ...props, onchange: () => put(choices[choice.selectedIndex]) });
	const add = (value) => choice.append(el("option", {}, String(value)));
	choices.forEach(add);
	return { nodes: [choice], start: values[0], show: (value) => {
		if (value !== null && !choices.includes(value)) {
			choices.push(value);
			add(value);
		}
		choice.selectedIndex = choices.indexOf(value);
	} };
}
// `parse(text)` makes the value of a text, and `write(value)` the text of a value that is no text.
function makeText(tag, start, parse = String, write = JSON.stringify) {
	return (_, props, put) => {
		const entry = el(tag, { ...props, spellcheck: "false", ...(tag === "textarea" && { rows: 3 }), oninput: () => put(parse(entry.value)) });
		return { nodes: [entry], start, show: (value) => { entry.value = typeof value === "string" ? value : value === null ? "" : write(value); } };
	};
}
function parseNames(text) {
	try {
		const value = JSON.parse(text);
		if (typeof value === "object" && value) return value;
	} catch { /* it is no JSON, but names */ }
	return text.split("\n").map((name) => name.trim()).filter(Boolean);
}
const isNames = (value) => Array.isArray(value) && value.every((name) => typeof name === "string");
const writeNames = (value) => isNames(value) ? value.join("\n") : JSON.stringify(value);
const parseVector = (text) => splitNumbers(text).map((part) => Number.isFinite(+part) ? +part : part);
const writeVector = (value) => Array.isArray(value) ? value.join(", ") : JSON.stringify(value);

function makeControl(field, ...given) {
	const { kind, values, size, required } = field;
	const makers = {
		number: makeNumber, boolean: makeSwitch, category: values ? makeChoice : makeText("input", required ? "" : null), text: makeText("textarea", ""),
		bag: makeText("textarea", [], parseNames, writeNames), vector: makeText("textarea", required ? Array(size).fill(0) : null, parseVector, writeVector),
	};
	return makers[kind](field, ...given);
}
const HINTS = { bag: "one name a line", vector: "numbers" };

// Return a field for each value of a row. Of several that read it, the one with a kind of its own decides on the control.
function groupFields(described) {
	const groups = new Map();
	for (const field of described) {
		const value = field.source ?? field.name;
		if (field.kind !== "cross") groups.set(value, [...groups.get(value) ?? [], field]);
	}
	return [...groups].map(([name, group]) => {
		const field = group.find(({ kind }) => kind !== "category") ?? group.find(({ values }) => values) ?? group[0];
		return { ...field, name, required: group.some(({ required }) => required) };
	});
}

// Return the input for rows with these fields. `changed(row)` is called with an object after each change.
export function makeForm(described, changed) {
	const fields = groupFields(described);
	let row = {};
	// Each change makes a new row; names of fields may be "__proto__" too.
	const put = (name, value) => {
		row = { ...row, [name]: value };
		changed(row);
	};
	const parts = fields.map((field, j) => {
		const { name, kind, size, required } = field, id = `field-${j}`, hint = HINTS[kind] && `${size ?? ""} ${HINTS[kind]}`.trim();
		const control = makeControl(field, { id, dir: "auto", ...(hint && { placeholder: hint }) }, (value) => {
			box.checked = value === null;
			put(name, value);
		});
		const box = el("input", { type: "checkbox", "aria-label": `missing: ${name}`, onchange: () => {
			const value = box.checked ? null : control.start ?? (size ? Array(size).fill(0) : "");
			control.show(value);
			put(name, value);
		} });
		const node = el("div", { class: `field ${kind}` }, el("label", { for: id, dir: "auto" }, name), required ? "" : el("label", { class: "absent" }, box, "missing"), ...control.nodes);
		return { name, control, box, node };
	});
	function set(values) {
		row = { ...Object.fromEntries(parts.map(({ name }) => [name, null])), ...values };
		for (const { name, control, box } of parts) {
			control.show(row[name]);
			box.checked = row[name] === null;
		}
		changed(row);
	}
	const clear = () => set(Object.fromEntries(parts.map(({ name, control }) => [name, control.start])));
	fill("input", el("div", { class: "fields" }, ...parts.map(({ node }) => node)));
	clear();
	return { kind: "form", set, clear };
}
