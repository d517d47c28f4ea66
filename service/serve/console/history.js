// The history as the service sends it: sums over buckets, each named by the seq where it ends.

// Return a history with the buckets of an answer, which may hold only those that changed.
export function merge(old, part) {
	if (!part || !old || ["epoch", "from", "bucket"].some((name) => old[name] !== part[name])) return part ?? old;
	const index = (seq) => Math.ceil((seq - part.from) / part.bucket), first = index(part.seq[0] ?? Infinity);
	const kept = old.seq.filter((seq) => index(seq) < first).length;
	return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, Array.isArray(value) ? [...(old[name] ?? []).slice(0, kept), ...value] : value]));
}

// Return the mean over the last rows at each bucket: over the fewest buckets that hold as many rows as wanted.
function trailing(rows, sums, wanted = 200) {
	let first = 0, n = 0, total = 0;
	return rows.map((more, i) => {
		n += more;
		total += sums[i];
		while (n - rows[first] >= wanted) {
			n -= rows[first];
			total -= sums[first++];
		}
		return n ? total / n : null;
	});
}
export const lines = (h) => ({
	loss: trailing(h.rows, h.loss), right: trailing(h.rows, h.hits),
	frozenLoss: trailing(h.frozen_rows, h.frozen_loss), frozenRight: trailing(h.frozen_rows, h.frozen_hits),
});

// Return at most so many spans of buckets in a range of seq, as [first, last, start, end] with `last` excluded.
// A span holds a power of two of buckets, and so does not move as the history grows.
export function spans({ seq, bucket, from }, [a, b], most = 64) {
	const visible = [...seq.keys()].filter((i) => seq[i] > a && seq[i] - bucket < b);
	const step = 2 ** Math.max(0, Math.ceil(Math.log2(visible.length / most)));
	return visible.filter((i) => i % step === 0 || i === visible[0]).map((i) => {
		const first = i - (i % step), last = Math.min(first + step, seq.length);
		return [first, last, from + first * bucket, seq[last - 1]];
	});
}
