// "Try it": the answer to a row, teaching it, and forgetting that again.
import { $, S, bold, count, el, fill, fillEmpty, largest, percent, reasonAgainst, say, setVars, whole } from "./page.js";
import { ask, key, modelPath } from "./api.js";
import { splitNumbers } from "./form.js";

const BARS_MAX = 14; // of more classes, the most probable are shown; of labels that can come together, all
const WAIT_SECONDS = 30; // an event is learned or forgotten within these, or the service says that it will be
// The probabilities before the row was taught, which bars there are, of which row, and why there is no teaching.
let before, shown, drawn, hint = "", listed; // `listed`: the names of "another class"

// Show the probabilities, with marks for what was said before teaching, or by the artifact.
export function drawBars() {
	const { meta, answer, trajectory } = S, P = answer?.probabilities, isMulti = meta.head === "multilabel";
	if (!P) {
		shown = null;
		$("other").hidden = true;
		fillEmpty("bars", S.row ? "No answer." : "Draw with the mouse or a finger. The answer changes as you draw.");
		return drawControls();
	}
	const marks = before ?? (trajectory?.seq[0] === 0 ? trajectory.probabilities[0] : []);
	const isWide = P.length > BARS_MAX && !isMulti, classes = largest(P, isWide ? BARS_MAX - 2 : P.length), [top] = classes;
	if (!isWide) classes.sort((a, b) => a - b);
	const wanted = JSON.stringify([meta.name, meta.classes.length, classes]);
	if (wanted !== shown) {
		drawn = null; // the new boxes are not checked yet
		fill("bars", ...classes.map(makeBar));
		if (isMulti) $("bars").append(el("button", { onclick: () => teach([...$("bars").querySelectorAll(":checked")].map(({ value }) => meta.classes[value])) }, "The checked labels are right"));
	}
	shown = wanted;
	$("other").hidden = !isWide;
	if (isWide && String(meta.classes) !== listed) fill("classes", ...meta.classes.map((name) => el("option", { value: name })));
	if (isWide) listed = String(meta.classes);
	classes.forEach((k, i) => {
		const bar = $("bars").children[i], [, track, value, control] = bar.children;
		bar.classList.toggle("best", k === top);
		setVars(track, { p: P[k], mark: marks[k] ?? 0 });
		track.lastChild.hidden = marks[k] == null;
		say(value, percent(P[k]));
		if (drawn !== answer.row) control.checked = P[k] >= .5;
	});
	drawn = answer.row;
	return drawControls();
}

// Allow teaching if the answer that is shown is of now, else say why not.
export function drawControls() {
	const isPast = S.head !== null || (S.answer?.head ?? null) !== null, reason = isPast ? "Go back to now to teach." : reasonAgainst("feedback");
	for (const control of document.querySelectorAll("#bars button, #bars input, #other button")) control.disabled = Boolean(reason);
	if (reason !== hint || !$("said").textContent) say($("said"), reason);
	hint = reason;
}

function makeBar(k) {
	const name = S.meta.classes[k], control = S.meta.head === "multilabel" ? el("input", { type: "checkbox", value: k, "aria-label": `Label ${name}` })
		: el("button", { "aria-label": `it is this: ${name}`, onclick: () => teach(name) }, "it is this");
	return el("div", { class: "bar" }, el("span", { class: "name", title: name }, name), el("span", { class: "track", "aria-hidden": "true" }, el("i"), el("b")), el("span", { class: "value" }), control);
}

// The probabilities that are shown, if they are of this row, now.
const answerTo = (row) => S.answer?.row === row && S.answer.head === null ? S.answer.probabilities : undefined;

// Do what the service may refuse; then its own sentence is shown. Return the event as text, or null if it was not done.
// Meanwhile a second click does nothing.
async function attempt(text, part, body) {
	if (S.isTeaching) return null;
	const { row } = S, was = answerTo(row);
	S.isTeaching = true;
	say($("said"), text);
	try {
		({ seq: S.taught } = await ask(`${part}?wait=true`, body, WAIT_SECONDS));
		before = part === ":feedback" && S.row === row ? was : undefined;
		await hooks.refresh();
		return [bold(whole(S.taught))];
	} catch (error) {
		say($("said"), error.message);
		return null;
	} finally {
		S.isTeaching = false;
	}
}
async function teach(label) {
	const id = `console-${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`, { row } = S, k = S.meta.classes.indexOf(label), was = answerTo(row);
	const seq = await attempt("Teaching…", ":feedback", { id, instances: [row], labels: [label] });
	if (!seq) return;
	const is = answerTo(row), change = k < 0 || !was || !is ? [] : [` ${label}: ${percent(was[k])} → `, bold(percent(is[k])), "."];
	const { paused, shadow } = S.meta.learning ?? {}, done = paused ? "Kept" : shadow ? "Learned in the shadow" : "Learned";
	fill("said", `${done} as event `, ...seq, ".", ...change, " The mark on each bar is where it was. ", reasonAgainst("admin") ? "" : el("button", { class: "ghost", onclick: () => forget(id) }, "Forget it again"));
}
async function forget(id) {
	const seq = await attempt("Forgetting…", ":forget", { id: `${id}-forget`, ids: [id] });
	if (seq) fill("said", "Forgotten as event ", ...seq, ". The model is what it would be without it, to the last bit.");
}

$("other").onsubmit = (event) => {
	const name = $("other-class").value;
	event.preventDefault();
	if (S.meta.classes.includes(name)) teach(name);
	else say($("said"), "This model has no such class.");
};

// Drop what was said about another row, model or event.
export function clearAnswer() {
	before = undefined;
	say($("said"), "");
}

// `input()` is the input, and `refresh()` asks for the answer again.
let hooks;
export const listenToTry = (given) => { hooks = given; };
$("clear").onclick = () => hooks.input().clear();
$("paste").onclick = () => {
	say($("row-hint"), S.meta.fields ? "A JSON object of the fields and their values. A field that it leaves out is missing." : `${count(S.meta.n_features, "number")}, with commas or spaces between them.`);
	$("row-text").value = S.meta.fields ? JSON.stringify(S.row, null, 1) : S.row?.join(", ") ?? "";
	say($("row-error"), "");
	$("row").showModal();
};
$("row-cancel").onclick = () => $("row").close();
$("row").onsubmit = (event) => {
	const { row, reason = "" } = (S.meta.fields ? parseObject : parseNumbers)($("row-text").value);
	say($("row-error"), reason);
	if (reason) event.preventDefault();
	else hooks.input().set(row);
};
function parseNumbers(text) {
	const row = splitNumbers(text).map(Number), bad = row.findIndex((v) => !Number.isFinite(v)), n = S.meta.n_features;
	if (row.length !== n) return { reason: `That is ${count(row.length, "number")}; this model takes ${whole(n)}.` };
	return bad >= 0 ? { reason: `Number ${bad + 1} is not a number.` } : { row };
}
function parseObject(text) {
	try {
		const row = JSON.parse(text);
		return row && typeof row === "object" && !Array.isArray(row) ? { row } : { reason: "A row of this model is a JSON object." };
	} catch {
		return { reason: "That is not JSON." };
	}
}
$("curl").onclick = async () => {
	const url = new URL(`${modelPath()}:predict`, document.baseURI), header = key() ? ' -H "Authorization: Bearer $SOFTSTEP_KEY"' : "";
	const text = `curl -s '${url}'${header} -d '${JSON.stringify({ instances: [S.row ?? []] }).replaceAll("'", "'\\''")}'`; // a quote ends the shell's text
	// Browsers have no clipboard for pages over plain HTTP; the command is shown then.
	await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => say($("said"), "Copied."), () => say($("said"), text));
};
