// Traffic over the last two minutes, from the differences of counters.
import { el, fill, number, rate, say, $ } from "./page.js";

const SECONDS = 120;
const HEIGHT = 40;
const PARTS = [["requests", "Predictions a second", rate], ["p99", "99 % answered within", (v) => v == null ? "–" : `${number(1000 * v)} ms`], ["events", "Events acknowledged a second", rate]];
let last, points;

export function clearTraffic() {
	last = null;
	points = [];
	fill("sparks", ...PARTS.map(([, title]) => el("div", {}, el("div", { class: "label" }, el("span", {}, title), el("b")), el("div", { class: "spark" }, el("span"),
		el("svg:svg", { viewBox: `0 0 ${SECONDS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title }, el("svg:path"), el("svg:path"))))));
}

// Show the rates since the last pulse, and return them; undefined at the first one, and after a restart.
export function drawTraffic({ counters }) {
	const now = performance.now() / 1000, old = last;
	last = { now, ...counters };
	if (!(counters.requests >= old?.requests)) return undefined;
	const per = (name) => Math.max(0, counters[name] - old[name]) / (now - old.now);
	const point = { now, requests: per("requests"), events: per("events"), p99: quantile(.99, counters.duration_buckets, old.duration_buckets) };
	points = [...points.filter((one) => one.now > now - SECONDS), point];
	PARTS.forEach(([name, , text], i) => {
		const [label, { children: [scale, chart] }] = $("sparks").children[i].children, known = points.filter((one) => one[name] != null), most = Math.max(...known.map((one) => one[name]), 1e-4);
		// Without traffic there is no line, so that nothing is painted at rest.
		const path = !known.some((one) => one[name]) ? "" : known.map((one) => `${(SECONDS - now + one.now).toFixed(1)} ${(HEIGHT * (1 - one[name] / most / 1.1)).toFixed(1)}`).join("L");
		say(label.lastChild, text(point[name]));
		say(scale, known.length ? text(most) : "");
		chart.lastChild.setAttribute("d", path && `M${path}`);
		chart.firstChild.setAttribute("d", path && `M${path}V${HEIGHT}H${SECONDS - now + known[0].now}Z`);
	});
	return point;
}

// Return a quantile of the durations between two pulses, in seconds; linear within a bucket, null without any.
function quantile(q, buckets, old) {
	const counts = buckets.map(([limit, n], i) => [limit ?? Infinity, n - (old[i]?.[1] ?? 0)]), wanted = q * (counts.at(-1)?.[1] ?? 0), i = counts.findIndex(([, n]) => n >= wanted);
	if (!wanted) return null;
	const [low, below] = counts[i - 1] ?? [0, 0], [high, n] = counts[i];
	return high === Infinity ? low : low + (high - low) * (wanted - below) / (n - below || 1);
}
