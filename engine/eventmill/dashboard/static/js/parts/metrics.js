// Prometheus text: counters' sums and histograms' quantiles.

/** `{name: [{labels, value}]}` of a text in Prometheus' exposition format. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match || line.startsWith("#")) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}

/** A histogram's quantile in its own unit, linear within a bucket as Prometheus does it; null where nothing was observed. */
export function quantile(metrics, name, q) {
  const sums = new Map();
  for (const { labels, value } of metrics.get(`${name}_bucket`) ?? []) {
    const le = labels.le === "+Inf" ? Infinity : Number(labels.le);
    sums.set(le, (sums.get(le) ?? 0) + value);
  }
  const buckets = [...sums].sort((a, b) => a[0] - b[0]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [below, under] = [0, 0];
  for (const [le, count] of buckets) {
    if (count >= q * total) return le === Infinity ? below : below + (le - below) * ((q * total - under) / (count - under || 1));
    [below, under] = [le, count];
  }
  return below;
}
