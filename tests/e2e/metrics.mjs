// A scrape of `/metrics`, and what tests ask of it.

import { request } from "./client.mjs";

/** What the server printed of where its metrics are; undefined when they are off. */
export function metricsUrl(server) {
  return /metrics {2}(http:\/\/\S+)\/metrics/.exec(server.lines().join("\n"))?.[1];
}

/** One scrape: the page, and its samples by name and labels as they are written. */
export class Scrape {
  static async of(server) {
    const { status, headers, text } = await request(metricsUrl(server), "GET", "/metrics");
    if (status !== 200) throw new Error(`a scrape was answered ${status}: ${text}`);
    return new Scrape(text, headers);
  }

  constructor(text, headers) {
    Object.assign(this, { text, headers, samples: new Map() });
    for (const line of text.split("\n").filter((line) => line !== "" && !line.startsWith("#"))) {
      const at = line.lastIndexOf(" ");
      const [name, value] = [line.slice(0, at), Number(line.slice(at + 1))];
      if (Number.isNaN(value) || this.samples.has(name)) throw new Error(`no sample, or one that is there twice: ${line}`);
      this.samples.set(name, value);
    }
  }

  /** The sample written so; over all shards if it has none of that name. */
  get(name) {
    const value = this.samples.get(name);
    if (value !== undefined) return value;
    const [family, labels = ""] = name.split(/[{}]/);
    const parts = [...this.samples].filter(([key]) => new RegExp(`^${family}\\{shard="\\d+"`).test(key) && key.includes(labels));
    if (parts.length === 0) throw new Error(`there is no ${name}`);
    return parts.reduce((sum, [, part]) => sum + part, 0);
  }

  /** How much each of these has grown since `before`. */
  since(before, names) {
    return Object.fromEntries(names.map((name) => [name, this.get(name) - before.get(name)]));
  }

  /** The samples that only go up. */
  counters() {
    return [...this.samples].filter(([name]) => /_(total|bucket|count|sum)(\{|$)/.test(name));
  }
}
