// The list of events, and the admin events that the charts show as flags.
import { $, S, bold, className, count, el, fill, fillEmpty, number, percent, reasonAgainst, time, whole } from "./page.js";
import { ask } from "./api.js";
import { axis } from "./axis.js";

const LIMIT = 50;
const FLAGS_MAX = 200;
const NONE = { all: "No event yet.", surprising: "No event has been scored yet.", admin: "Nothing was rolled back, forgotten or configured." };
let kind = "all", listed; // what is asked for, and what is shown

const load = (query) => ask(`/events?${new URLSearchParams(query)}`);

export async function loadFlags() {
	if (reasonAgainst("admin")) return;
	const { events, forgotten } = await load({ kind: "admin", limit: FLAGS_MAX });
	Object.assign(S, { flags: events, forgotten });
}

export async function loadEvents() {
	if (reasonAgainst("admin")) return fillEmpty("events", reasonAgainst("admin"));
	const asked = kind, { events } = await load({ kind, limit: LIMIT });
	// A list that the reader has scrolled, or is in with the keyboard, stays.
	if (asked !== kind || (listed === kind && ($("events").scrollTop || $("events").querySelector(":focus-visible")))) return undefined;
	listed = kind;
	if (!events.length) return fillEmpty("events", NONE[kind]);
	const body = el("tbody", {}, ...events.map(row)), heads = ["Event", "When", "Id", "What", "Loss", events.some(({ actor }) => actor) ? "By" : ""].map((text) => el(text ? "th" : "td", {}, text));
	let { seq: oldest } = events.at(-1);
	const more = el("button", { class: "ghost", hidden: kind === "surprising" || events.length < LIMIT, async onclick() {
		const { events: older } = await load({ kind, limit: LIMIT, before: oldest }).catch(() => ({}));
		if (!older) return; // the reader may try again
		body.append(...older.map(row));
		oldest = older.at(-1)?.seq;
		more.hidden = older.length < LIMIT;
	} }, "Older events");
	return fill("events", el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...heads)), body), more);
}

function row(event) {
	const { seq, time_ms, id, actor, loss } = event, isFeedback = event.kind === "feedback", text = (kindOf, value) => el("td", { class: kindOf, title: value ?? "" }, value ?? "");
	return el("tr", { class: isFeedback ? "" : "admin" }, el("td", {}, el("button", { title: "Show the model before this event", onclick: () => axis.onPick(seq - 1) }, whole(seq))),
		el("td", { class: "muted" }, time(time_ms)), text("id", id), el("td", { class: "what" }, ...(isFeedback ? feedbackText(event) : [el("span", { class: "tag" }, event.kind), ` ${detailText(event.detail)}`])),
		el("td", {}, loss == null ? "" : number(loss)), text("id", actor));
}

function feedbackText({ label, answer, loss, rows, removed }) {
	const note = removed ? el("span", { class: "tag" }, removed.replace("_", " ")) : "";
	if (label === null) return [rows === null ? "" : `${count(rows, "row")} `, note];
	const isRight = answer === label, outcome = answer === null ? "" : isRight ? " was expected" : el("span", { class: "bad" }, ` was taken for ${className(answer)}`);
	return [bold(className(label)), outcome, loss === null ? " " : ` · ${percent(Math.exp(-loss))} given to it `, note];
}
const detailText = (detail) => Object.entries(detail ?? {}).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");

export function listenToEvents(report) {
	const buttons = [...$("kinds").children];
	$("kinds").onclick = ({ target }) => {
		if (!buttons.includes(target)) return;
		kind = target.value;
		for (const button of buttons) button.setAttribute("aria-pressed", button === target);
		loadEvents().catch(report);
	};
}
