// What the page knows, its elements, and numbers as text.

export const S = {
	scopes: [], // what the key allows
	head: null, // the event of the playhead; null is now
	heard: performance.now(), // when the service answered last
	version: null, // the version that the reader chose; null is the newest
	// The rest is of one model: its name, metadata (`meta`), latest pulse, history, drift, quality, flags (admin events),
	// stretches of forgotten events, the row to try, the answer to it, and its trajectory.
};
export const $ = (id) => document.getElementById(id);

// Make an element. Names and ids of the service can hold anything, so text is only ever set as text.
// `vars` are CSS custom properties; they are set by script, because the policy allows no style attributes.
export function el(tag, props = {}, ...children) {
	const node = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
	for (const [name, value] of Object.entries(props)) {
		if (name === "vars") setVars(node, value);
		else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (value !== false) node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children);
	return node;
}
export function setVars(node, vars) {
	for (const [name, value] of Object.entries(vars)) node.style.setProperty(`--${name}`, value);
}
export const bold = (text) => el("b", {}, text);
export const fill = (id, ...nodes) => $(id).replaceChildren(...nodes);
export const fillEmpty = (id, text) => fill(id, el("div", { class: "nothing" }, text));

// Change a text only if it differs, so that nothing is painted or read aloud twice.
export function say(node, text) {
	if (node.textContent !== text) node.textContent = text;
}
// A table of numbers; the first cell of each row is its heading.
export function table(caption, heads, rows) {
	const th = (scope, text) => el("th", { scope }, text);
	const body = rows.map(([first, ...cells]) => el("tr", {}, th("row", first), ...cells.map((cell) => el("td", {}, cell))));
	return el("table", { class: "numbers" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...heads.map((text) => th("col", text)))), el("tbody", {}, ...body));
}

// A color of the stylesheet, as the current theme has it.
const probe = document.body.appendChild(el("i", { hidden: true }));
export function color(name) {
	probe.style.color = `var(--${name})`;
	return getComputedStyle(probe).color;
}
export const hue = (k, K) => `oklch(.72 .11 ${(28 + (360 * k) / K) % 360})`;
export const colorKey = (classes) => classes.map((k) => el("span", {}, el("i", { class: "dot", vars: { c: hue(k, S.meta.classes.length) } }), className(k)));
export const fullName = () => S.version ? `${S.name} v${S.version}` : S.name;
export const className = (k) => S.meta.classes[k] ?? `class ${k}`;
export const isNarrow = () => innerWidth <= 640;
export const sum = (values) => values.reduce((a, b) => a + b, 0);
// The indexes of the largest values, at most n of them.
export const largest = (values, n) => [...values.keys()].sort((a, b) => values[b] - values[a] || a - b).slice(0, n);

export const whole = (v) => v?.toLocaleString("en") ?? "–";
export const percent = (v, digits = 1) => v == null ? "–" : `${v < .0005 ? 0 : v > .9995 ? 100 : (100 * v).toFixed(digits)}\u00a0%`; // in one line
export const rate = (v) => v == null ? "–" : v >= 1000 ? whole(Math.round(v)) : v.toFixed(v < 10 ? 1 : 0);
export const number = (v) => v == null ? "–" : v >= 1000 ? whole(Math.round(v)) : v >= .001 || !v ? String(+v.toPrecision(3)) : v.toExponential(1);
export const signed = (v) => (v < 0 ? "−" : "+") + number(Math.abs(v));
export const count = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
export function ago(ms) {
	const seconds = Math.max(0, (Date.now() - ms) / 1000);
	const [size, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "min"] : [3600, "h"];
	return seconds < 172800 ? `${Math.round(seconds / size)} ${unit} ago` : new Date(ms).toLocaleDateString("en");
}
// How long ago a time was. `drawTimes()` writes all of them again, at rest too.
export const time = (ms) => el("time", { datetime: new Date(ms).toISOString(), title: new Date(ms).toLocaleString("en") }, ago(ms));
export function drawTimes() {
	for (const node of document.querySelectorAll("time")) say(node, ago(Date.parse(node.dateTime)));
}
// Why this page cannot do what a scope allows, or "".
export const reasonAgainst = (scope) => !S.meta.learner ? "This service does not learn: learning is off, or its data is read-only."
	: S.scopes.includes(scope) ? "" : `This key does not have the scope ${scope}.`;
