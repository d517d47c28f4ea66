// The console: choose a model, ask for its pulse once a second, and show what changed.
import { $, S, drawTimes, el, fill, fullName, say, whole } from "./page.js";
import { ask, call, dropCalls, setKey } from "./api.js";
import { axis, setView } from "./axis.js";
import { listenToEvents, loadEvents, loadFlags } from "./events.js";
import { merge } from "./history.js";
import { makeInput } from "./input.js";
import { drawConfusion, drawHeadline, drawReliability, drawTiles } from "./quality.js";
import { drawAbout, drawStatus } from "./status.js";
import { buildTimeline, drawPlayhead, drawTimeline } from "./timeline.js";
import { clearTraffic, drawTraffic } from "./traffic.js";
import { clearAnswer, drawBars, drawControls, listenToTry } from "./try.js";
import { buildTrajectory, drawReasons, drawTrajectory } from "./why.js";

const OLDER_MAX = 4; // so many older pulses one after another mean that the service began with other data, such as a backup
const BACK_OFF_MAX = 30; // seconds between two tries while the service does not answer
const SILENT_SECONDS = 3; // after so long without an answer the page says so, though a call may still be answered
const NO_ANSWER = [400, 410, 422];
const DRAG_MS = 100; // the service is asked once the playhead has rested so long
const DRAW_MS = 60; // and once the row has
// Seconds between two loads of a part while events come. At rest, metadata alone is loaded again: files may change on disk.
const PAUSES = { answer: 2, quality: 4, events: 4, trajectory: 10, drift: 15, meta: 10 };
const REST_SECONDS = 15, SERVED = ["answer", "meta"]; // parts of the state that is served; the others are of the learner's report, which follows it
let input, loaded = {}; // the row by hand; of each part, what had been learned when it was loaded, and when that was
let asked = 0, latest, failures = 0, olderPulses = 0, isShown, isMissing, isSilent, isRunning, timer, dragTimer, drawTimer; // `latest` is the latest question about the row

const older = (one, other) => one.epoch < other.epoch || (one.epoch === other.epoch && one.seq < other.seq);
// Whether a pulse is older than anything that the service has answered before.
const isPast = (pulse) => older(pulse, S.pulse) || older(pulse, S.meta) || pulse.seq < (S.taught ?? 0);

function isDue(name) {
	const { epoch, seq, admin_seq } = S.pulse ?? S.meta, what = `${epoch} ${seq} ${admin_seq} ${SERVED.includes(name) || S.history?.until}`, { [name]: last } = loaded, age = (performance.now() - last?.when) / 1000;
	const isOld = !last || (last.what !== what && age >= PAUSES[name]) || (name === "meta" && age >= REST_SECONDS);
	if (isOld) loaded[name] = { what, when: performance.now() };
	return isOld;
}

// Return whether something was learned since the last pulse. Another worker may still answer with an older state.
async function loadPulse() {
	const { history: h, pulse: old } = S, pulse = await ask(`/pulse${h ? `?since=${h.until}&epoch=${h.epoch}&bucket=${h.bucket}` : ""}`);
	if (old && isPast(pulse)) {
		olderPulses += 1;
		if (olderPulses > OLDER_MAX) await choose(S.name);
		return false;
	}
	olderPulses = 0;
	Object.assign(S, { pulse, history: merge(h, pulse.history) });
	drawTiles(drawTraffic(pulse) ?? null);
	if (pulse.admin_seq !== old?.admin_seq) await loadFlags();
	return !old || older(old, pulse) || pulse.admin_seq !== old.admin_seq;
}
async function loadMeta() {
	const meta = await ask(""), old = S.meta, isSame = meta.version === old.version && meta.ready;
	if (isSame && older(meta, old)) return;
	S.meta = meta;
	if (!isSame) return choose(S.name);
	if (meta.classes.length !== old.classes.length) rebuild();
	drawTimes();
	return drawAbout();
}
async function loadQuality() {
	const { head } = S, quality = await ask(`/quality${head === null ? "" : `?seq=${head}`}`);
	if (head !== S.head) return;
	S.quality = quality;
	drawTiles();
	drawHeadline();
	drawConfusion();
	drawReliability();
}
async function loadDrift() {
	const had = S.drift?.shift;
	S.drift = await ask("/drift");
	if (S.input && !had !== !S.drift?.shift) rebuild();
}
async function loadTrajectory() {
	const { row } = S, found = row && S.meta.seq ? await ask(":trajectory", { instances: [row] }) : null;
	if (row !== S.row) return;
	S.trajectory = found;
	drawTrajectory();
	drawBars();
}
// Ask for the answer to the row, as of the playhead. Only the answer to the latest question counts. Now, it contains what
// the reader taught, whichever worker answers.
const loadAnswer = () => (latest = findAnswer(asked += 1));
async function findAnswer(mine) {
	const { row, head, meta } = S, body = { instances: [row], ...(head === null ? { min_seq: S.taught ?? 0 } : { seq: head }), ...(input.kind === "pad" && { top: meta.n_features }) };
	const find = () => row && ask(":explain", body).catch((error) => ({ error }));
	let found = await find();
	while (found?.retry && mine === asked) {
		say($("said"), `Folding event ${whole(head)}…`);
		await new Promise((done) => { setTimeout(done, 1000 * found.retry); });
		if (mine === asked) found = await find();
	}
	if (mine !== asked) return latest;
	if ($("said").textContent.startsWith("Folding")) say($("said"), "");
	if (row === S.row && head === S.head) setBusy(false);
	isMissing = head !== null && Boolean(found?.error) && !(found.error.status < 500);
	// A row that is refused, or a state that is gone, has no answer; with any other error, the last answer stays.
	if (!found || NO_ANSWER.includes(found.error?.status)) S.answer = null;
	else if (!found.error && !found.retry) S.answer = { ...found.explanations[0], row, head };
	drawBars();
	drawReasons(input);
	if (found?.error) throw found.error;
	return undefined;
}
// Say whether the bars are of another row or event than the reader has chosen.
const setBusy = (isBusy) => $("bars").setAttribute("aria-busy", isBusy);

// Whether a model or version is not there any more, or is not served now.
const isGone = ({ status, code }) => status === 404 || code === "model_not_ready";

// Show why a call was refused, in its place; throw on if the service did not answer, or does not know the key.
function report(error) {
	if (!error.status || error.status === 401 || error.status >= 500) throw error;
	if (error.status === 404) return; // the model is gone, as the next pulse will find
	say($("said"), error.status === 410 ? "Gone: it held a forgotten event." : error.message);
}
const run = (...promises) => Promise.all(promises).catch(report).catch(fail);

// Load the parts that are due, unless the last pulse is older than they are.
async function loadDue() {
	if (olderPulses) return;
	const { seq, admin_seq } = S.pulse ?? {}, isChanged = S.meta.seq < admin_seq && admin_seq <= seq; // classes or rule may be others
	if (isDue("meta") || isChanged) await loadMeta();
	const parts = { drift: loadDrift, events: loadEvents, trajectory: loadTrajectory, ...(S.head === null && { quality: loadQuality, answer: loadAnswer }) };
	for (const [name, load] of Object.entries(parts)) if (isShown && isDue(name)) await load().catch(report);
}

async function tick() {
	clearTimeout(timer);
	if (document.hidden || isRunning) return undefined;
	isRunning = true;
	if (!isSilent) S.heard = performance.now();
	try {
		if (!isShown) await start();
		else {
			if (await loadPulse()) drawTimeline();
			await loadDue();
		}
		[failures, isSilent] = [0, false];
		if (isMissing) run(loadQuality(), loadAnswer()); // of the past, which is not asked for again otherwise
		drawStatus();
		return later(S.meta?.ready ? 1 : 2);
	} catch (error) {
		return fail(error);
	} finally {
		isRunning = false;
	}
}
const later = (seconds) => {
	clearTimeout(timer);
	timer = setTimeout(tick, 1000 * seconds);
};
function fail(error) {
	if (error.status === 401) return askForKey();
	if (isGone(error)) leave(); // begin with the models that are there
	if (error.status === 403) say($("headline"), error.message);
	failures += 1;
	isSilent = !error.status;
	if (isSilent) drawSilence();
	else drawStatus(0, error.message);
	return later(Math.max(error.retry || 0, Math.min(BACK_OFF_MAX, 2 ** (failures - 1))));
}
function drawSilence() {
	const seconds = (performance.now() - S.heard) / 1000;
	if (isSilent || (isRunning && seconds > SILENT_SECONDS)) drawStatus(Math.max(1, Math.round(seconds)));
}

async function start() {
	({ scopes: S.scopes } = await call("v1/key"));
	const { models } = await call("v1/models"), [, at, version, head] = /^#([^@/]*)(?:\/(\d+))?(?:@(\d+))?$/.exec(location.hash) ?? [];
	fill("model", ...models.map(({ name, state }) => el("option", { value: name }, state === "READY" ? name : `${name} (unavailable)`)));
	document.body.classList.toggle("none", !models.length);
	if (models.length) {
		const named = models.find(({ name }) => encodeURIComponent(name) === at), wanted = named ?? models.find(({ state }) => state === "READY") ?? models[0];
		S.version = named && version ? version : null;
		return choose(wanted.name, head);
	}
	say($("headline"), "No model is served yet.");
	return say($("subline"), "Put a folder NAME/1/ with model.json and model.safetensors into the models directory; it is served within two seconds.");
}

// Drop what is still to come about a model, and show its last picture until there is another.
function leave() {
	dropCalls();
	[S.meta, isShown, isRunning, axis.paints] = [null, false, false, []];
	for (const card of document.querySelectorAll(".card")) card.inert = true;
}

async function choose(name, head) {
	leave();
	isRunning = true;
	const blank = Object.fromEntries(["meta", "pulse", "history", "drift", "quality", "row", "answer", "trajectory", "head", "input", "taught", "isTeaching"].map((part) => [part, null]));
	Object.assign(S, blank, { name, flags: [], forgotten: [] });
	[loaded, axis.view] = [{}, null];
	clearTraffic();
	clearAnswer();
	$("model").value = name;
	S.meta = await ask("").catch((error) => {
		if (!isGone(error) || !S.version) throw error;
		S.version = null; // it is gone: show the newest
		return ask("");
	});
	document.title = `${fullName()} · Softstep`;
	document.body.classList.toggle("none", !S.meta.ready);
	if (!S.meta.ready) {
		say($("headline"), `${name} is not served.`);
		return say($("subline"), S.meta.versions.map(({ version, reason }) => `Version ${version}: ${reason}.`).join(" "));
	}
	isDue("meta");
	await loadPulse();
	await loadDrift();
	S.input = input = makeInput(S.meta, S.drift?.training, (row) => {
		Object.assign(S, { row, trajectory: null });
		if (!S.input) return;
		change();
		clearTimeout(drawTimer);
		drawTimer = setTimeout(() => run(loadAnswer(), loadTrajectory()), DRAW_MS);
	});
	rebuild();
	drawAbout();
	await Promise.all([loadAnswer(), loadTrajectory()]).catch(report);
	if (head) goTo(+head);
	await loadQuality();
	for (const card of document.querySelectorAll(".card")) card.inert = false;
	isShown = true;
	return document.body.classList.remove("loading");
}

// Add all charts again: for another model, or for a class more.
function rebuild() {
	axis.paints = [];
	buildTimeline();
	buildTrajectory();
	drawTimeline();
	drawPlayhead();
	drawTrajectory();
}

// Show the page as it was after an event, or now.
function goTo(seq) {
	S.head = seq === null || seq >= (S.pulse ?? S.meta).seq ? null : Math.max(0, Math.round(seq));
	history.replaceState(null, "", `#${encodeURIComponent(S.name)}${S.version ? `/${S.version}` : ""}${S.head === null ? "" : `@${S.head}`}`);
	drawPlayhead();
	drawTiles();
	change();
	clearTimeout(dragTimer);
	dragTimer = setTimeout(() => run(loadQuality(), loadAnswer()), DRAG_MS);
}
// Another row or event was chosen: until its answer arrives, the last one stays, and teaches nothing of another event.
function change() {
	setBusy(true);
	clearAnswer();
	drawControls();
}
function askForKey() {
	if (!$("login").open) $("login").showModal();
}
$("login").oncancel = (event) => event.preventDefault();
$("login").onsubmit = async (event) => {
	event.preventDefault();
	setKey($("key").value.trim());
	try {
		await call("v1/models");
	} catch (error) {
		if (error.status === 401) setKey("");
		return say($("key-error"), error.status === 401 ? "This service does not know that key." : error.message);
	}
	$("key").value = "";
	$("login").close();
	return restart();
};

function restart() {
	leave();
	tick();
}
function redraw() {
	if (!S.meta?.ready) return;
	setView(axis.view);
	if (S.answer) drawReasons(input);
}
$("model").onchange = ({ target }) => { location.hash = encodeURIComponent(target.value); };
$("version").onchange = ({ target }) => { location.hash = `${encodeURIComponent(S.name)}${target.value && `/${target.value}`}`; };
addEventListener("hashchange", restart);
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = redraw;
$("theme").onclick = () => {
	const { dataset } = document.documentElement, isDark = dataset.theme ? dataset.theme === "dark" : dark.matches;
	dataset.theme = isDark ? "light" : "dark";
	localStorage.setItem("softstep-theme", dataset.theme);
	redraw();
};
addEventListener("resize", () => {
	if (!S.meta?.ready) return;
	setView(axis.view);
});
document.addEventListener("visibilitychange", tick);
axis.onPick = goTo;
listenToEvents(report);
listenToTry({ input: () => input, refresh: async () => {
	loaded = {};
	await loadAnswer();
	later(0);
} });
drawTiles();
setInterval(drawSilence, 1000);
restart();
