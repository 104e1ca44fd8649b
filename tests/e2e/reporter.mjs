// A reporter for `node --test`: one line per fact, failures in full at the end, and the totals alone on the last line.
// A skipped or unfinished test counts as failed: what is not run is not shown.

import { inspect } from "node:util";

export default async function* reporter(source) {
  let passed = 0;
  const failures = [];
  for await (const { type, data } of source) {
    if (type === "test:stderr" || type === "test:stdout") yield data.message;
    if (type !== "test:pass" && type !== "test:fail") continue;
    const isFile = /\.mjs$/.test(data.name);
    const left = data.skip !== undefined || data.todo !== undefined;
    if (type === "test:pass" && !left) {
      if (data.details?.type === "suite" || isFile) continue;
      passed += 1;
      yield `  ok    ${data.name} (${Math.round(data.details.duration_ms)} ms)\n`;
      continue;
    }
    const error = data.details?.error;
    // A suite fails because one of its tests did: that one is reported.
    if (error?.failureType === "subtestsFailed") continue;
    failures.push({ name: data.name, why: left ? "was not run" : describe(error) });
    yield `  FAIL  ${data.name}\n`;
  }
  for (const { name, why } of failures) yield `\nFAIL  ${name}\n${why.replace(/^/gm, "    ")}\n`;
  yield `\ne2e: ${passed} passed, ${failures.length} failed\n`;
}

function describe(error) {
  const cause = error?.cause ?? error;
  return typeof cause === "string" ? cause : (cause?.stack ?? inspect(cause));
}
