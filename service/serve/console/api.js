// Calls of the service. Every path is relative to the page, so the console works behind any prefix.
import { S } from "./page.js";

const KEY = "softstep-key"; // in the storage of this tab alone
const SECONDS = 8; // a call that takes longer counts as no answer

// An error of the service: its status, its code, its own sentence, and in how many seconds to ask again.
class Refused extends Error {
	constructor(status, body, retry) {
		super(body.error ?? `The service answered ${status}.`);
		Object.assign(this, { status, code: body.code, retry });
	}
}
export const key = () => sessionStorage.getItem(KEY);
export const setKey = (text) => text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY);

// `dropCalls()` drops the answers that are still to come: their promises never settle. The page calls it when the reader
// leaves a model, so that a late answer cannot be shown as one of the next model.
let turn = 0;
export const dropCalls = () => { turn += 1; };
export function call(...given) {
	const mine = turn;
	return new Promise((done, failed) => { send(...given).then((json) => mine === turn && done(json), (error) => mine === turn && failed(error)); });
}

// Return the JSON of an answer: to a POST if there is a body, else to a GET. 202 has `retry`, in seconds.
async function send(path, body, seconds = SECONDS) {
	const headers = { ...(key() && { Authorization: `Bearer ${key()}` }), ...(body && { "Content-Type": "application/json" }) };
	const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(seconds * 1000) });
	S.heard = performance.now();
	const json = await answer.json().catch(() => ({})), retry = +answer.headers.get("Retry-After");
	if (!answer.ok) throw new Refused(answer.status, json, retry);
	return answer.status === 202 && retry ? { retry } : json;
}
export const modelPath = () => `v1/models/${encodeURIComponent(S.name).replaceAll("'", "%27")}${S.version ? `/versions/${S.version}` : ""}`;
export const ask = (part, body, seconds) => call(modelPath() + part, body, seconds);
