// systemd/duet-dashboard.json: whether it is what Grafana's own types allow, is right where they cannot see, and shows something.
//
// No Grafana runs here. The types are those of its npm package, put to the dashboard by the TypeScript compiler; the queries
// are put to a Prometheus that scrapes a duet. Wrong dashboards, each wrong in one place, show that wrong ones are seen.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { request } from "../e2e/client.mjs";
import { LeanSocket, callBetween, guests } from "../e2e/lean.mjs";
import { RawSocket } from "../e2e/raw.mjs";
import { Server, eventually, freePort, temporaryFolder } from "../e2e/server.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const SYSTEMD = join(HERE, "../../systemd");
const TYPES = { strict: true, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, allowImportingTsExtensions: true, types: [] };
const COLUMNS = 24;
/** Of those that @grafana/data knows (`getValueFormats`, and `count:` with a word of one's own): any other would be shown as it is. */
const UNITS = ["bytes", "count:/min", "count:/s", "none", "percentunit", "s", "short"];
const LABEL = /\{\{(\w+)\}\}/g;
const VARIABLE = /\$\{?(\w+)/g;
/** Those that Grafana fills in by itself. */
const BUILT_IN = ["__rate_interval", "__range", "__all"];
/** What there is with Postgres alone. */
const ONLY_WITH_A_JOURNAL = /^sum\(duet_journal_/;
/** Limits low enough to be met. */
const FLAGS = { "connections-max": 20, "logins-per-hour": 1, "event-rate": 1, "event-burst": 20 };
const TIMEOUT = { timeout: 120_000 };
/** Longer than all that happens here. */
const RATE_INTERVAL = "2m";

const dashboard = JSON.parse(readFileSync(join(SYSTEMD, "duet-dashboard.json"), "utf8"));

/** What the compiler says of each of these dashboards. */
function typeFaults(dashboards) {
  const texts = new Map(dashboards.map((each, index) => [
    join(HERE, `dashboard-${index}.ts`),
    `import type { DuetDashboard } from "./shape.ts";\nexport default ${JSON.stringify(each)} satisfies DuetDashboard;`,
  ]));
  const host = ts.createCompilerHost(TYPES);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (name) => texts.has(name) || fileExists(name);
  host.getSourceFile = (name, ...rest) => (texts.has(name) ? ts.createSourceFile(name, texts.get(name), TYPES.target) : getSourceFile(name, ...rest));
  const program = ts.createProgram({ rootNames: [...texts.keys()], options: TYPES, host });
  const about = (diagnostics) => diagnostics.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
  assert.deepEqual(about([...program.getOptionsDiagnostics(), ...program.getGlobalDiagnostics(), ...program.getSemanticDiagnostics(program.getSourceFile(join(HERE, "shape.ts")))]), []);
  return [...texts.keys()].map((name) => about(program.getSemanticDiagnostics(program.getSourceFile(name))));
}

const twice = (values) => values.filter((value, index) => values.indexOf(value) !== index);
const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

/** What is wrong in a dashboard and is none of the types' business. */
function otherFaults({ panels, templating, annotations }) {
  const faults = [];
  const expect = (isRight, fault) => isRight || faults.push(fault);
  const defined = [...BUILT_IN, ...templating.list.map(({ name }) => name)];
  const used = [...JSON.stringify([panels, templating, annotations]).matchAll(VARIABLE)].map(([, name]) => name);
  for (const name of used) expect(defined.includes(name), `the variable ${name} is not defined`);
  for (const id of twice(panels.map(({ id }) => id))) faults.push(`two panels have the id ${id}`);
  for (const [index, { title, type, gridPos: place, targets = [], datasource, fieldConfig }] of panels.entries()) {
    expect(place.w > 0 && place.h > 0 && place.x >= 0 && place.x + place.w <= COLUMNS, `${title} is not on the grid`);
    for (const other of panels.slice(index + 1)) expect(!overlap(place, other.gridPos), `${title} lies on ${other.title}`);
    if (type === "row") continue;
    expect(UNITS.includes(fieldConfig.defaults.unit), `${title}: there is no unit ${fieldConfig.defaults.unit}`);
    expect(targets.length > 0, `${title} asks nothing`);
    for (const refId of twice(targets.map(({ refId }) => refId))) faults.push(`${title}: two queries are called ${refId}`);
    for (const source of [datasource, ...targets.map(({ datasource }) => datasource)]) expect(source?.uid === "${datasource}", `${title} asks another source than the chosen one`);
    for (const { expr } of targets) expect(expr.includes('instance=~"$instance"'), `${title} does not heed the chosen instances`);
  }
  return faults;
}

/** Each is wrong in one place. */
const WRONG = {
  "a panel's type": (find) => (find("timeseries").type = "timeserie"),
  "a misspelt option": (find) => (find("stat").options.colourMode = "value"),
  "an option of another type of panel": (find) => (find("stat").options.legend = find("timeseries").options.legend),
  "a value that its enum lacks": (find) => (find("timeseries").options.legend.displayMode = "lists"),
  "a misspelt field option": (find) => (find("timeseries").fieldConfig.defaults.custom.lineWith = 1),
  "a word for a number": (find) => (find("timeseries").fieldConfig.defaults.custom.fillOpacity = "10"),
  "a threshold without a colour": (find) => delete find("stat").fieldConfig.defaults.thresholds.steps[0].color,
  "a misspelt word of a query": (find) => (find("timeseries").targets[0].legend = "all"),
  "a misspelt setting of the whole": (find, whole) => (whole.timezones = "utc"),
  "a misspelt setting of a variable": (find, whole) => (whole.templating.list[0].multiple = true),
  "a unit": (find) => (find("timeseries").fieldConfig.defaults.unit = "requests"),
  "a panel on another": (find) => (find("timeseries").gridPos.h += 1),
  "a panel beside the grid": (find) => (find("timeseries").gridPos.x = 20),
  "an id that another has": (find) => (find("timeseries").id = find("stat").id),
  "two queries of one name": (find) => find("timeseries").targets.push(find("timeseries").targets[0]),
  "a variable that is not there": (find) => (find("stat").targets[0].expr += ' + on () up{job="$job"}'),
  "a source of its own": (find) => (find("stat").targets[0].datasource.uid = "prometheus"),
};

describe("the dashboard's form", () => {
  it("is what Grafana's types allow and what they cannot see, and each of some wrong ones is not", () => {
    const wrong = Object.values(WRONG).map((spoil) => {
      const spoilt = structuredClone(dashboard);
      spoil((type) => spoilt.panels.find((panel) => panel.type === type), spoilt);
      return spoilt;
    });
    const all = [dashboard, ...wrong];
    const types = typeFaults(all);
    const [faults, ...seen] = all.map((each, index) => [...types[index], ...otherFaults(each)]);
    assert.deepEqual(faults, []);
    assert.deepEqual(Object.keys(WRONG).filter((_, index) => seen[index].length === 0), [], "what was not seen");
  });
});

/** A Prometheus that scrapes one server; it ends with the test. */
class Prometheus {
  static async start(t, target) {
    const folder = temporaryFolder();
    const config = {
      global: { scrape_interval: "500ms", scrape_timeout: "500ms", evaluation_interval: "500ms" },
      rule_files: [join(SYSTEMD, "duet-alerts.yml")],
      scrape_configs: [{ job_name: "duet", static_configs: [{ targets: [target] }] }],
    };
    // JSON is YAML.
    writeFileSync(join(folder, "prometheus.yml"), JSON.stringify(config));
    const prometheus = new Prometheus();
    const address = `127.0.0.1:${await freePort()}`;
    prometheus.url = `http://${address}`;
    prometheus.child = spawn("prometheus", [`--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=${address}`], { stdio: "ignore" });
    const ended = new Promise((resolve) => prometheus.child.once("close", resolve));
    t.after(async () => {
      prometheus.child.kill();
      await ended;
    });
    await eventually("Prometheus is ready", async () => (await request(prometheus.url, "GET", "/-/ready").catch(() => ({}))).status === 200);
    return prometheus;
  }

  /** What it answers; it says what is wrong with a query that it cannot read. */
  async ask(path, query = {}) {
    const { status, text, body } = await request(this.url, "GET", `/api/v1/${path}?${new URLSearchParams(query)}`);
    assert.equal(status, 200, `${JSON.stringify(query)}: ${text}`);
    return body.data;
  }

  /** Whether it has a number for this, which has the labels that its legend names. */
  async shows({ expr, legendFormat = "" }) {
    const query = expr.replaceAll("$__rate_interval", RATE_INTERVAL).replaceAll("$__range", RATE_INTERVAL).replaceAll("$instance", ".*");
    const { result } = await this.ask("query", { query });
    const labels = [...legendFormat.matchAll(LABEL)].map(([, label]) => label);
    return result.some(({ metric, value: [, number] }) => Number.isFinite(Number(number)) && labels.every((label) => label in metric));
  }
}

/** Two people sign up, one queues, they call, talk and hang up; then one is refused another call, events, a log-in, and others a connection. */
async function somethingOfEach(server) {
  const people = await guests(server.url, 2);
  const [caller, callee] = await Promise.all(people.map(async ({ token }) => (await LeanSocket.open(server.port)).bind(token)));
  const listed = callee.next("queue:update");
  callee.emit("queue:join");
  await listed;
  const roomId = await callBetween(caller, callee, people[1].id, people[1].token);
  const heard = callee.next("rtc:ice");
  caller.emit("rtc:ice", { roomId, candidate: { candidate: "" } });
  await heard;
  const ends = [caller.next("session:finalized"), callee.next("session:finalized")];
  caller.emit("call:end", { roomId });
  await Promise.all(ends);
  const refused = caller.next("call:declined");
  caller.emit("call:invite", { toUserId: people[1].id, requestedSeconds: 300 });
  await refused;
  const tooMany = caller.next("error");
  for (let i = 0; i <= FLAGS["event-burst"]; i++) caller.emit("queue:leave");
  await tooMany;
  await request(server.url, "GET", "/user/me", { token: people[0].token });
  for (let i = 0; i <= FLAGS["logins-per-hour"]; i++) await request(server.url, "POST", "/auth/login", { body: { email: "ada@example.org", password: "not the one" } });
  return Promise.all(Array.from({ length: FLAGS["connections-max"] }, () => RawSocket.connect(server)));
}

describe("the dashboard's queries", () => {
  it("each gives data of a server on which something of each has happened, and all alert rules are evaluated", TIMEOUT, async (t) => {
    const metrics = `127.0.0.1:${await freePort()}`;
    const server = await Server.start({ metrics, ...FLAGS });
    t.after(() => server.kill());
    const prometheus = await Prometheus.start(t, metrics);
    // Rates are of what has grown between two scrapes.
    await eventually("it is scraped", () => prometheus.shows({ expr: "duet_build_info" }));
    await somethingOfEach(server);
    for (const query of [...dashboard.annotations.list.map(({ target }) => target), ...dashboard.panels.flatMap(({ targets = [] }) => targets)]) {
      if (ONLY_WITH_A_JOURNAL.test(query.expr)) assert.equal(await prometheus.shows(query), false);
      else await eventually(query.expr, () => prometheus.shows(query));
    }
    for (const { query } of dashboard.templating.list.map(({ query }) => query).filter((query) => query.query)) {
      const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(query);
      assert.deepEqual(await prometheus.ask(`label/${label}/values`, { "match[]": metric }), [metrics]);
    }
    await eventually("every rule has been evaluated without a fault", async () => {
      const rules = (await prometheus.ask("rules")).groups.flatMap(({ rules }) => rules);
      return rules.length > 0 && rules.every(({ health }) => health === "ok");
    });
  });
});
