// The pill and the banner: how the service and its learner are. And what the model is, in the bar and at the end.
import { $, S, count, el, fill, number, percent, say, whole } from "./page.js";

const DIM_SECONDS = 3;
let beaten, versions; // the seq at the last beat of the pill, and the versions that are listed

// Return the color of the pill, its text, and that of the banner.
function describe(silent, refusal) {
	const { meta } = S, now = S.pulse ?? meta, lag = now?.lag_events, waiting = `${count(lag, "event")} ${lag === 1 ? "waits" : "wait"}`, { state, reason, seq, refolded = 0 } = now?.learner ?? {};
	if (silent) return ["error", `No answer for ${whole(silent)} s, trying again`];
	if (refusal) return ["error", "Refused, trying again", refusal];
	if (!meta) return ["", "Connecting"];
	if (!meta.ready) return ["warn", "Unavailable"];
	if (!state) return ["ok", "Live", "This service does not learn: learning is off, or its data directory is read-only."];
	if (state === "stalled") return ["warn", "Stalled", `Learning stands still before event ${whole(seq)}: ${reason}. Predictions go on from event ${whole(now.seq)} and feedback is still kept: ${waiting}. An operator can leave the event out with “softstep skip”.`];
	if (state === "held") return ["warn", "Held", `Learning waits: ${reason}. It goes on by itself once the cause is gone; ${waiting}.`];
	if (state === "unavailable") return ["warn", "No log", "The feedback log cannot be read. Predictions go on; feedback is refused until it can."];
	if (state === "refolding") return ["warn", `Folding again, ${percent(refolded, 0)}`, `An event was forgotten, corrected or rolled back, so what was learned is folded again: ${percent(refolded, 0)} done. Predictions go on.`];
	if (meta.learning?.paused) return ["warn", "Paused", "Learning is paused: feedback is kept and scored, and changes nothing."];
	if (meta.learning?.shadow) return ["warn", "Shadow", "The model learns in the shadow: what is served stays as it was."];
	return ["ok", "Live", meta.bound_differs ? "The models directory has another artifact than the one that learns. Give it a new version." : ""];
}

// `silent` says for how many seconds there has been no answer; meanwhile the last banner stays. `refusal` is the service's
// reason for refusing what the page asked.
export function drawStatus(silent = 0, refusal = "") {
	const [kind, text, sentence = ""] = describe(silent, refusal), seq = S.pulse?.seq, pill = $("status");
	pill.className = `pill ${kind}`;
	say(pill.lastChild, text);
	if (!silent && seq !== beaten) {
		if (beaten !== undefined) requestAnimationFrame(() => pill.classList.add("beat"));
		beaten = seq;
	}
	document.body.classList.toggle("stale", silent > DIM_SECONDS);
	if (silent) return;
	$("banner").hidden = !sentence;
	say($("banner"), sentence);
}

// List the versions that are served, if there are several, or if the reader chose one.
function drawVersions() {
	const served = S.meta.versions.filter(({ state }) => state === "READY").map(({ version }) => version).reverse(), picker = $("version"), [newest] = served;
	if (String(served) !== versions) fill("version", ...served.map((version) => el("option", { value: version === newest ? "" : version }, version === newest ? `v${version}, newest` : `v${version}`)));
	versions = String(served);
	picker.value = S.version === newest ? "" : S.version ?? "";
	picker.parentElement.hidden = served.length < 2;
}

const words = (record) => Object.entries(record).filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
export function drawAbout() {
	const { meta } = S, { layers, learning, progressive: { step_norm, mean_step_norm }, metrics, provenance } = meta;
	drawVersions();
	say($("shape"), `${$("version").parentElement.hidden ? `v${meta.version} · ` : ""}${meta.head} · ${[layers[0].inputs, ...layers.map(({ outputs }) => outputs)].join(" → ")} · ${whole(meta.parameters)} numbers`);
	const facts = [["Weights, SHA-256", el("code", {}, meta.weights_sha256)], ["Rule", learning ? words(learning) : "none until the first event"],
		["Steps", step_norm == null ? "" : `last ${number(step_norm)}, mean ${number(mean_step_norm)}`],
		["Forgotten", meta.epoch ? `${count(meta.epoch, "time")}, ${meta.erased ? "erased from the disk" : "being erased"}` : "nothing"],
		...Object.entries(provenance ?? {}).map(([name, value]) => [name.replaceAll("_", " "), String(value)]), ["Held-out rows", metrics ? words(metrics) : ""]];
	fill("facts", ...facts.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
